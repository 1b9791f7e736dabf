"""API keys of the active tenant."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
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
from tenants.services.keys import create_api_key, revoke_api_key

SCOPE_TEXTS: dict[Scope, Text] = {
    Scope.INFERENCE: _("Call models"),
    Scope.TENANT_READ: _("Read the tenant, its quotas and usage"),
    Scope.KEYS_READ: _("List API keys"),
    Scope.KEYS_WRITE: _("Make and revoke API keys"),
    Scope.JOBS_READ: _("Read jobs"),
    Scope.AUDIT_READ: _("Read the audit trail"),
}


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


def key_state(key: ApiKey, now: datetime) -> tuple[str, Text]:
    """A key's state: the colour of its label and what it says."""
    if key.revoked_at is not None:
        return "danger", _("Revoked")
    if key.expires_at is not None and key.expires_at <= now:
        return "default", _("Expired")
    return "success", _("Active")


def _detail(key: ApiKey) -> str:
    return reverse("admin:tenants_apikey_change", args=[key.pk])


def _create(request: HttpRequest, _obj: None, data: dict[str, Any]) -> HttpResponse:
    made = create_api_key(context=context_of(request), **data)
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
        "made_by",
        "kind_name",
        "expires_at",
        "created_at",
    )
    list_filter = (_StateFilter, "kind")
    search_fields = ("name", "public_id", "user__email")
    ordering = ("-created_at",)

    def allows(self, request: HttpRequest, page: FormPage, obj: Any) -> bool:
        if page.name != "revoke":
            return super().allows(request, page, obj)
        own = obj is not None and obj.user_id == context_of(request).user_id
        return may(request, Action.KEY_REVOKE) or (own and may(request, Action.KEY_REVOKE_OWN))

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return ApiKey.objects.select_related("user").defer("secret_hmac", "session_hmac")

    @display(description=_("Key"), ordering="public_id")
    def key_id(self, key: ApiKey) -> str:
        return f"fh_{key.public_id}_…"

    @display(description=_("State"), label=STATUS_KINDS)
    def state_label(self, key: ApiKey) -> tuple[str, str]:
        kind, text = key_state(key, timezone.now())
        return kind, str(text)

    @display(description=_("Made by"), ordering="user__email")
    def made_by(self, key: ApiKey) -> str:
        return key.user.email

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
            (_("Made by"), obj.user.email),
            (_("Created"), obj.created_at),
            (_("Expires"), obj.expires_at or _("Never")),
        ]
        if obj.kind == ApiKeyKind.PLAYGROUND:
            facts.append(
                (_("Kind"), _("Playground: works only in the browser session it was made in"))
            )
        if obj.revoked_at is not None:
            facts += [(_("Revoked at"), obj.revoked_at), (_("Reason"), obj.revoked_reason)]
        return {"facts": facts}
