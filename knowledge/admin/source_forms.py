"""Forms of sources of documents."""

from typing import Any

from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from knowledge.admin.base_forms import EmptyForm
from knowledge.models import DocumentSource, OnRemoved, SourceKind
from knowledge.schedules import MOST_CHARS
from knowledge.sources.services import MOST_NAME_CHARS, MOST_PASSWORD_CHARS
from knowledge.sources.settings import (
    MOST_COLUMN_CHARS,
    MOST_COLUMNS,
    MOST_HOST_CHARS,
    MOST_PATH_CHARS,
    MOST_PATTERN_CHARS,
    MOST_QUERY_CHARS,
)
from portal.core.pages import INPUT, ServiceForm


class ColumnsField(forms.CharField):
    """Names of columns, by commas."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=MOST_COLUMNS * MOST_COLUMN_CHARS, **options)

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list | tuple) else value

    def clean(self, value: Any) -> list[str]:
        return [c.strip() for c in super().clean(value).split(",") if c.strip()]


class SourceForm(EmptyForm):
    """What every source has. Fields of its kind stand in ``settings_fields``."""

    settings_fields: tuple[str, ...] = ()

    name = forms.CharField(
        label=_("Name"),
        max_length=MOST_NAME_CHARS,
        widget=forms.TextInput(attrs={**INPUT, "autofocus": True}),
    )
    schedule = forms.CharField(
        label=_("Schedule"),
        max_length=MOST_CHARS,
        required=False,
        initial="15",
        help_text=_(
            "Minutes, such as 15, or five fields of cron in the tenant's time zone, such as "
            "0 3 * * * for 3 o'clock each night. Empty: when somebody asks for it."
        ),
        widget=forms.TextInput(attrs=INPUT),
    )
    on_removed = forms.ChoiceField(
        label=_("When a document is not in the source any more"),
        choices=OnRemoved.choices,
        initial=OnRemoved.DELETE,
        widget=forms.Select(attrs=INPUT),
    )


class FolderForm(SourceForm):
    """A folder that is watched."""

    settings_fields = ("path", "include")

    path = forms.CharField(
        label=_("Folder"),
        max_length=MOST_PATH_CHARS,
        required=False,
        help_text=_("Below the one that the operator gave to this tenant; empty for all of it."),
        widget=forms.TextInput(attrs=INPUT),
    )
    include = forms.CharField(
        label=_("Files"),
        max_length=MOST_PATTERN_CHARS,
        required=False,
        help_text=_("Patterns by commas, such as *.pdf, reports/*; empty for every file."),
        widget=forms.TextInput(attrs=INPUT),
    )
    field_order = ("name", "path", "include", "schedule", "on_removed")


class EditFolderForm(FolderForm):
    """A folder's settings as they are."""

    def initial_of(self, subject: DocumentSource) -> dict[str, Any]:
        return initial_of(subject, self.settings_fields)


class DatabaseForm(SourceForm):
    """A database that is read."""

    settings_fields = (
        *("host", "port", "database", "user", "tls", "query", "key_column", "name_column"),
        *("text_columns", "metadata_columns", "cursor_column", "full_hours"),
    )

    kind = forms.ChoiceField(
        label=_("Kind"),
        choices=[(k.value, k.label) for k in SourceKind if k != SourceKind.FOLDER],
        widget=forms.Select(attrs=INPUT),
    )
    host = forms.CharField(
        label=_("Host"), max_length=MOST_HOST_CHARS, widget=forms.TextInput(attrs=INPUT)
    )
    port = forms.IntegerField(
        label=_("Port"),
        min_value=1024,
        max_value=65535,
        help_text=_("Usually 5432 of PostgreSQL, 3306 of MySQL and MariaDB, 27017 of MongoDB."),
        widget=forms.NumberInput(attrs=INPUT),
    )
    database = forms.CharField(
        label=_("Database"), max_length=MOST_COLUMN_CHARS, widget=forms.TextInput(attrs=INPUT)
    )
    user = forms.CharField(
        label=_("User"),
        max_length=MOST_COLUMN_CHARS,
        help_text=_("Give it the right to read what is needed, and no other."),
        widget=forms.TextInput(attrs={**INPUT, "autocomplete": "off"}),
    )
    password = forms.CharField(
        label=_("Password"),
        max_length=MOST_PASSWORD_CHARS,
        required=False,
        strip=False,
        help_text=_("It is encrypted, and never shown again."),
        widget=forms.PasswordInput(attrs={**INPUT, "autocomplete": "new-password"}),
    )
    tls = forms.BooleanField(
        label=_("TLS"),
        required=False,
        initial=True,
        help_text=_("The connection is encrypted, and the certificate must be the host's."),
    )
    query = forms.CharField(
        label=_("Query"),
        max_length=MOST_QUERY_CHARS,
        help_text=_(
            'A SELECT. Of MongoDB: {"find": "tickets", "filter": {"open": true}}. Each row becomes '
            "a document."
        ),
        widget=forms.Textarea(attrs={**INPUT, "rows": 5}),
    )
    key_column = forms.CharField(
        label=_("Key column"),
        max_length=MOST_COLUMN_CHARS,
        help_text=_("It tells a row from all others, for good."),
        widget=forms.TextInput(attrs=INPUT),
    )
    name_column = forms.CharField(
        label=_("Name column"),
        max_length=MOST_COLUMN_CHARS,
        required=False,
        help_text=_("The documents' names; empty for the key."),
        widget=forms.TextInput(attrs=INPUT),
    )
    text_columns = ColumnsField(
        label=_("Text columns"),
        help_text=_("What is searched, by commas; several stand each behind its name."),
        widget=forms.TextInput(attrs=INPUT),
    )
    metadata_columns = ColumnsField(
        label=_("Metadata columns"),
        required=False,
        help_text=_("What can be filtered by, by commas."),
        widget=forms.TextInput(attrs=INPUT),
    )
    cursor_column = forms.CharField(
        label=_("Column that grows"),
        max_length=MOST_COLUMN_CHARS,
        required=False,
        help_text=_(
            "A number or a time such as updated_at: later runs read from its newest value on. "
            "Empty: every run reads everything."
        ),
        widget=forms.TextInput(attrs=INPUT),
    )
    full_hours = forms.IntegerField(
        label=_("Read everything after (hours)"),
        min_value=0,
        max_value=8760,
        initial=24,
        help_text=_("Which finds the rows that were removed; 0 for never."),
        widget=forms.NumberInput(attrs=INPUT),
    )
    field_order = ("name", "kind", *settings_fields[:4], "password", *settings_fields[4:])


class EditDatabaseForm(DatabaseForm):
    """A database's settings as they are."""

    kind = None  # type: ignore[assignment]

    def __init__(self, request: HttpRequest, subject: Any = None, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        self.fields["password"].help_text = _(
            "Leave it empty to keep the present one; another host, port, database or user needs it "
            "again."
        )

    def initial_of(self, subject: DocumentSource) -> dict[str, Any]:
        return initial_of(subject, self.settings_fields)


def initial_of(source: DocumentSource, fields: tuple[str, ...]) -> dict[str, Any]:
    """What a form of a source holds before anybody typed."""
    common = {name: getattr(source, name) for name in ("name", "schedule", "on_removed")}
    return common | {name: source.settings.get(name) for name in fields}


class RunForm(EmptyForm):
    """How a source is read now."""

    full = forms.BooleanField(
        label=_("Look at everything"),
        required=False,
        initial=True,
        help_text=_("So that what was removed is found too."),
    )
    empty_allowed = forms.BooleanField(
        label=_("Nothing may be found"),
        required=False,
        help_text=_("If the source is empty, all its documents are removed."),
    )


class DeleteSourceForm(ServiceForm):
    """What becomes of a source's documents."""

    documents = forms.ChoiceField(
        label=_("Its documents"),
        choices=[("keep", _("Keep them")), ("delete", _("Delete them"))],
        initial="keep",
        widget=forms.RadioSelect(),
    )
