"""Forms of sources of documents."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from knowledge.admin.base_forms import EmptyForm
from knowledge.models import DocumentSource, OnRemoved
from knowledge.schedules import MOST_CHARS
from knowledge.sources.services import MOST_NAME_CHARS
from knowledge.sources.settings import MOST_PATH_CHARS, MOST_PATTERN_CHARS
from portal.core.pages import INPUT, ServiceForm


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
