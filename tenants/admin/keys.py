"""API keys of the active tenant."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from portal.core.pages import (
    INPUT,
    STATUS_KINDS,
    FormPage,
    PortalModelAdmin,
    ServiceForm,
    Text,
    context_of,
    display,
    may,
)
from tenants.admin.common import ReasonForm, secret_page
from tenants.models import ApiKey
from tenants.models.keys import ApiKeyKind
from tenants.permissions import Action, Scope, grantable_scopes
from tenants.querysets import keys
from tenants.services import (
    CreatedKey,
    create_api_key,
    edit_api_key,
    revoke_api_key,
    rotate_api_key,
)
from tenants.services.key_changes import DEFAULT_OVERLAP_SECONDS, MOST_OVERLAP_SECONDS

SCOPE_TEXTS: dict[Scope, Text] = {
    Scope.INFERENCE: _("Call models"),
    Scope.TENANT_READ: _("Read the tenant, its quotas and usage"),
    Scope.MEMBERS_READ: _("List members"),
    Scope.MEMBERS_WRITE: _("Add and remove members who are no owners"),
    Scope.KEYS_READ: _("List API keys"),
    Scope.KEYS_WRITE: _("Make, edit, rotate and revoke API keys"),
    Scope.JOBS_READ: _("Read jobs"),
    Scope.KNOWLEDGE_READ: _("Read and search knowledge bases"),
    Scope.KNOWLEDGE_WRITE: _("Read, search and change knowledge bases"),
    Scope.APPS: _("Call apps"),
    Scope.APPS_READ: _("Read apps and their usage"),
    Scope.APPS_WRITE: _("Read, call and change apps"),
    Scope.EVENTS: _("Send events that start apps"),
    Scope.AUDIT_READ: _("Read the audit trail"),
}


OVERLAPS: tuple[tuple[int, Text], ...] = (
    (0, _("Immediately")),
    (3600, _("After an hour")),
    (DEFAULT_OVERLAP_SECONDS, _("After a day")),
    (7 * 24 * 3600, _("After a week")),
    (MOST_OVERLAP_SECONDS, _("After 30 days")),
)


class NetworksField(forms.CharField):
    """Networks, one a line or by commas; its value is a list."""

    def __init__(self) -> None:
        super().__init__(
            label=_("Networks"),
            required=False,
            max_length=4000,
            help_text=_(
                "From where the key may be used: networks such as 192.0.2.0/24 or 2001:db8::/32, "
                "one a line; empty means from anywhere."
            ),
            widget=forms.Textarea(attrs={**INPUT, "rows": 3}),
        )

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        return str(super().clean(value)).replace(",", " ").split()


class NetworksForm(ServiceForm):
    allowed_networks = NetworksField()


class RotateForm(ServiceForm):
    overlap_seconds = forms.TypedChoiceField(
        label=_("The present secret ends"),
        choices=OVERLAPS,
        initial=DEFAULT_OVERLAP_SECONDS,
        coerce=int,
        help_text=_(
            "Until then both secrets work, so that you can change one system after another."
        ),
        widget=forms.Select(attrs=INPUT),
    )


class CreateKeyForm(ServiceForm):
    name = forms.CharField(
        label=_("Name"),
        max_length=80,
        help_text=_("What will use it, such as “Help desk, production”."),
        widget=forms.TextInput(attrs=INPUT),
    )
    scopes = forms.MultipleChoiceField(
        label=_("What it may do"),
        initial=[Scope.INFERENCE.value],
        widget=forms.CheckboxSelectMultiple,
    )
    allowed_models = forms.CharField(
        label=_("Models"),
        required=False,
        max_length=2000,
        help_text=_("Names of models, by commas; empty means every model."),
        widget=forms.TextInput(attrs=INPUT),
    )
    allowed_networks = NetworksField()
    expires_at = forms.DateTimeField(
        label=_("Expires"),
        required=False,
        help_text=_("In UTC; empty means never."),
        widget=forms.DateTimeInput(attrs={**INPUT, "type": "datetime-local"}),
    )

    def __init__(self, request: HttpRequest, subject: Any = None, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        grantable = grantable_scopes(context_of(request))
        scopes = self.fields["scopes"]
        assert isinstance(scopes, forms.MultipleChoiceField)
        scopes.choices = [(s.value, text) for s, text in SCOPE_TEXTS.items() if s in grantable]

    def clean_allowed_models(self) -> list[str]:
        names = str(self.cleaned_data["allowed_models"]).split(",")
        return [name.strip() for name in names if name.strip()]


def curl_line(request: HttpRequest, token: str, model: str) -> str:
    """A command that works as pasted, once a deployment serves ``model``."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}]}
    return (
        f"curl {request.build_absolute_uri('/v1/chat/completions')} "
        f"-H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' "
        f"-d '{json.dumps(body)}'"
    )


def holder_of(api_key_id: UUID) -> str:
    """Whose a key of the open scope is, in words; empty for no such key."""
    key = ApiKey.objects.select_related("user").filter(pk=api_key_id).first()
    return "" if key is None else _holder(key)


def _holder(key: ApiKey) -> str:
    if key.user.service_id is None:
        return key.user.label
    return gettext("Service account %s") % key.user.label


def key_state(key: ApiKey, now: datetime) -> tuple[str, Text]:
    """A key's state: the colour of its label and what it says."""
    if key.revoked_at is not None:
        return "danger", _("Revoked")
    if key.expires_at is not None and key.expires_at <= now:
        return "default", _("Expired")
    return "success", _("Active")


def _last_uses(key: ApiKey) -> dict[int, datetime]:
    return {use.generation: use.last_used_at for use in key.uses.all()}


def _former_works(key: ApiKey, now: datetime) -> bool:
    return key.former_until is not None and key.former_until > now


def _moment(at: datetime | None, otherwise: Text) -> str:
    if at is None:
        return str(otherwise)
    return formats.date_format(timezone.localtime(at), "SHORT_DATETIME_FORMAT")


def _secrets(key: ApiKey, now: datetime) -> list[tuple[Text, Any]]:
    """Facts about the key's secrets: which there are, and when each was used last."""
    used = _last_uses(key)
    facts: list[tuple[Text, Any]] = [
        (_("Secret"), _("Generation %(n)s") % {"n": key.generation}),
        (_("Last used"), used.get(key.generation) or _("Not yet")),
    ]
    if key.generation > 1:
        until = key.former_until if _former_works(key, now) else _("It has ended")
        facts += [
            (_("Former secret works until"), until),
            (_("Former secret last used"), used.get(key.generation - 1) or _("Never")),
        ]
    return facts


def _detail(key: ApiKey) -> str:
    return reverse("admin:tenants_apikey_change", args=[key.pk])


def _create(request: HttpRequest, _obj: None, data: dict[str, Any]) -> HttpResponse:
    return key_ready(request, create_api_key(context=context_of(request), **data))


def key_ready(request: HttpRequest, made: CreatedKey) -> HttpResponse:
    """Shows a new key, this once, with a call to try it by."""
    model = (made.api_key.allowed_models or [example_model()])[0]
    inference = Scope.INFERENCE.value in made.api_key.scopes
    return secret_page(
        request,
        title=_("The API key is ready"),
        text=_("Copy it now: it is kept nowhere and not shown again."),
        secret=made.token,
        curl=curl_line(request, made.token, model) if inference and model else "",
        back=_detail(made.api_key),
    )


def _restrict(request: HttpRequest, key: ApiKey, data: dict[str, Any]) -> str:
    edit_api_key(context=context_of(request), api_key_id=key.pk, **data)
    return _detail(key)


def _rotate(request: HttpRequest, key: ApiKey, data: dict[str, Any]) -> HttpResponse:
    rotated = rotate_api_key(context=context_of(request), api_key_id=key.pk, **data)
    return secret_page(
        request,
        title=_("The new secret is ready"),
        text=_("Copy it now: it is kept nowhere and not shown again."),
        secret=rotated.token,
        back=_detail(key),
    )


def _is_open(key: ApiKey) -> bool:
    """Whether it can be changed at all."""
    return key.revoked_at is None and key.kind == ApiKeyKind.STANDARD


def _revoke(request: HttpRequest, key: ApiKey, data: dict[str, Any]) -> str:
    revoke_api_key(context=context_of(request), api_key_id=key.pk, reason=data["reason"])
    return _detail(key)


_served_model: Callable[[], str] | None = None


def on_example_model(find: Callable[[], str]) -> None:
    """Registers what names a model that is served; the catalogue is a floor above."""
    global _served_model
    _served_model = find


def example_model() -> str:
    """Name of a model that is served, for examples; empty where there is none."""
    return "" if _served_model is None else _served_model()


class _StateFilter(admin.SimpleListFilter):
    title = _("State")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("active", _("Active")), ("expired", _("Expired")), ("revoked", _("Revoked"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        now = timezone.now()
        if self.value() == "revoked":
            return queryset.filter(revoked_at__isnull=False)
        if self.value() == "expired":
            return queryset.filter(revoked_at=None, expires_at__lte=now)
        if self.value() == "active":
            return queryset.filter(revoked_at=None).exclude(expires_at__lte=now)
        return queryset


@admin.register(ApiKey)
class ApiKeyAdmin(PortalModelAdmin):
    """Credentials of business systems."""

    view_action = Action.KEY_READ
    add_page = FormPage(
        "add",
        Action.KEY_CREATE,
        _("New API key"),
        CreateKeyForm,
        _create,
        button=_("Create key"),
        intro=_("A business system sends the key with every call. It is shown once."),
    )
    pages = (
        FormPage(
            "networks",
            Action.KEY_EDIT_OWN,
            _("Networks"),
            NetworksForm,
            _restrict,
            button=_("Save"),
            intro=_("From the next request on the key works from these networks alone."),
            done=_("The networks are saved."),
            offered=_is_open,
        ),
        FormPage(
            "rotate",
            Action.KEY_EDIT_OWN,
            _("Rotate"),
            RotateForm,
            _rotate,
            button=_("Make a new secret"),
            intro=_(
                "The key gets a new secret and stays the same key: its name, scopes, quotas and "
                "history go on. A former secret that still works beside the present one ends now."
            ),
            offered=lambda key: _is_open(key) and key_state(key, timezone.now())[0] == "success",
        ),
        FormPage(
            "revoke",
            Action.KEY_REVOKE_OWN,
            _("Revoke"),
            ReasonForm,
            _revoke,
            button=_("Revoke key"),
            intro=_("The key is refused from the next request on. This can't be undone."),
            done=_("The key is revoked."),
            danger=True,
            offered=lambda key: key.revoked_at is None,
        ),
    )
    detail_template = "site/detail.html"
    empty_title = _("No API key yet")
    empty_text = _("A business system needs a key to call the models of this tenant.")
    list_display = (
        "name",
        "key_id",
        "state_label",
        "belongs_to",
        "kind_name",
        "last_used",
        "expires_at",
        "created_at",
    )
    list_filter = (_StateFilter, "kind")
    search_fields = ("name", "public_id", "user__email", "user__full_name")
    ordering = ("-created_at",)

    def allows(self, request: HttpRequest, page: FormPage, obj: Any) -> bool:
        if obj is None:
            return super().allows(request, page, obj)
        every = Action.KEY_REVOKE if page.name == "revoke" else Action.KEY_EDIT
        own = obj.user_id == context_of(request).user_id
        return may(request, every) or (own and may(request, page.action))

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return keys(playground=True).defer("secret_hmac", "former_secret_hmac", "session_hmac")

    @display(description=_("Key"), ordering="public_id")
    def key_id(self, key: ApiKey) -> str:
        return f"fh_{key.public_id}_…"

    @display(description=_("State"), label=STATUS_KINDS)
    def state_label(self, key: ApiKey) -> tuple[str, str]:
        kind, text = key_state(key, timezone.now())
        return kind, str(text)

    @display(description=_("Belongs to"), ordering="user__email")
    def belongs_to(self, key: ApiKey) -> str:
        return _holder(key)

    @display(description=_("Last used"))
    def last_used(self, key: ApiKey) -> str:
        used = _last_uses(key)
        present = _moment(used.get(key.generation), _("Not yet"))
        if not _former_works(key, timezone.now()):
            return present
        former = _moment(used.get(key.generation - 1), _("Never"))
        return _("%(present)s; former secret: %(former)s") % {
            "present": present,
            "former": former,
        }

    @display(description=_("Kind"), ordering="kind")
    def kind_name(self, key: ApiKey) -> str:
        return str(key.get_kind_display())

    def detail_context(self, request: HttpRequest, obj: ApiKey) -> dict[str, Any]:
        scopes = [str(SCOPE_TEXTS[Scope(s)]) for s in obj.scopes]
        facts: list[tuple[Text, Any]] = [
            (_("Key"), self.key_id(obj)),
            (_("State"), key_state(obj, timezone.now())[1]),
            (_("What it may do"), ", ".join(scopes)),
            (_("Models"), ", ".join(obj.allowed_models or []) or _("Every model")),
            (_("Networks"), ", ".join(obj.allowed_networks or []) or _("From anywhere")),
            (_("Belongs to"), _holder(obj)),
            (_("Created"), obj.created_at),
            (_("Expires"), obj.expires_at or _("Never")),
            *_secrets(obj, timezone.now()),
        ]
        if obj.kind == ApiKeyKind.PLAYGROUND:
            facts.append(
                (_("Kind"), _("Playground: works only in the browser session it was made in"))
            )
        if obj.revoked_at is not None:
            facts += [(_("Revoked at"), obj.revoked_at), (_("Reason"), obj.revoked_reason)]
        return {"facts": facts}
