"""Forms of apps and of their versions."""

import json
from typing import Any
from uuid import UUID

import msgspec
from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from inference.models import Task
from knowledge.admin.base_forms import EmptyForm
from knowledge.applications.selectors import newest_spec, searched_bases, versions
from knowledge.applications.spec import MOST_TEMPLATE_CHARS, Knowledge
from knowledge.models import App, AppMode, KnowledgeBase, Method
from knowledge.models.apps import MOST_KEEP_DAYS, MOST_SLUG_CHARS
from knowledge.models.bases import MOST_TOP_K
from knowledge.selectors import served_models
from portal.core.pages import INPUT, ServiceForm
from tenants.models import ApiKey
from tenants.models.keys import ApiKeyKind
from tenants.permissions import Scope

_GROUNDED = (
    "Answer from these passages alone. If they do not hold the answer, say so.\n\n"
    "{{context}}\n\nQuestion: {{query}}"
)


class _NamedForm(ServiceForm):
    """What an app is called."""

    name = forms.CharField(label=_("Name"), max_length=80, widget=forms.TextInput(attrs=INPUT))
    description = forms.CharField(
        label=_("Description"),
        max_length=400,
        required=False,
        widget=forms.TextInput(attrs=INPUT),
    )


class SettingsForm(_NamedForm):
    """What all versions of an app share."""

    keep_days = forms.IntegerField(
        label=_("Days that conversations are kept"),
        min_value=1,
        max_value=MOST_KEEP_DAYS,
        initial=30,
        widget=forms.NumberInput(attrs=INPUT),
    )

    allowed_keys = forms.TypedMultipleChoiceField(
        label=_("API keys that may call it"),
        required=False,
        coerce=UUID,
        help_text=_("None chosen: every key of the tenant that has the scope 'apps'."),
        widget=forms.CheckboxSelectMultiple,
    )

    def __init__(self, request: HttpRequest, subject: App, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        able = ApiKey.objects.filter(
            kind=ApiKeyKind.STANDARD, revoked_at=None, scopes__contains=[Scope.APPS.value]
        )
        listed = ApiKey.objects.filter(pk__in=subject.allowed_keys)
        self.fields["allowed_keys"].choices = [  # type: ignore[attr-defined]
            (str(key.pk), f"{key.name} ({key.public_id})")
            for key in (able | listed).order_by("name")
        ]

    def initial_of(self, subject: App) -> dict[str, Any]:
        return {**super().initial_of(subject), "allowed_keys": list(map(str, subject.allowed_keys))}


class RetrievalForm(EmptyForm):
    """How the app searches each of its knowledge bases; empty is as the knowledge base has it."""

    def __init__(self, request: HttpRequest, subject: App, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        self.spec = newest_spec(subject)
        found = {base.pk: base for base in searched_bases(self.spec)}
        for place, one in enumerate(self.spec.knowledge):
            base = found.get(one.knowledge_base_id)
            for name, field in _search_fields(one, base.name if base else "—").items():
                self.fields[f"{name}_{place}"] = field

    def document(self, data: dict[str, Any]) -> dict[str, Any]:
        """The newest version's specification, with this way of searching."""
        knowledge = [
            Knowledge(
                one.knowledge_base_id,
                method=data[f"method_{place}"] or None,
                top_k=data[f"top_k_{place}"],
                score_threshold=data[f"score_threshold_{place}"],
                rerank=data[f"rerank_{place}"],
            )
            for place, one in enumerate(self.spec.knowledge)
        ]
        return {**msgspec.to_builtins(self.spec), "knowledge": msgspec.to_builtins(knowledge)}


def _search_fields(one: Knowledge, base: str) -> dict[str, forms.Field]:
    def label(text: str) -> str:
        return f"{base}: {text}"

    return {
        "method": forms.ChoiceField(
            label=label(gettext("Search by")),
            choices=[("", _("As the knowledge base has it")), *Method.choices],
            required=False,
            initial=one.method or "",
            widget=forms.Select(attrs=INPUT),
        ),
        "top_k": forms.IntegerField(
            label=label(gettext("Passages")),
            min_value=1,
            max_value=MOST_TOP_K,
            required=False,
            initial=one.top_k,
            widget=forms.NumberInput(attrs=INPUT),
        ),
        "score_threshold": forms.FloatField(
            label=label(gettext("Least score")),
            min_value=0,
            max_value=1,
            required=False,
            initial=one.score_threshold,
            widget=forms.NumberInput(attrs={**INPUT, "step": "0.05"}),
        ),
        "rerank": forms.BooleanField(
            label=label(gettext("Reranked, where it has a model for that")),
            required=False,
            initial=one.rerank,
        ),
    }


class SpecForm(ServiceForm):
    """One version of an app."""

    model = forms.ChoiceField(label=_("Model"), widget=forms.Select(attrs=INPUT))
    knowledge = forms.MultipleChoiceField(
        label=_("Knowledge bases"),
        required=False,
        help_text=_("They are searched for each question, and what is found is cited."),
        widget=forms.CheckboxSelectMultiple,
    )
    prompt = forms.CharField(
        label=_("Prompt"),
        max_length=MOST_TEMPLATE_CHARS,
        initial=_GROUNDED,
        strip=False,
        help_text=_(
            "{{query}} stands for the question, {{context}} for what was found, {{name}} for an "
            "input."
        ),
        widget=forms.Textarea(attrs={**INPUT, "rows": 7}),
    )
    instructions = forms.CharField(
        label=_("Instructions"),
        max_length=MOST_TEMPLATE_CHARS,
        required=False,
        strip=False,
        help_text=_("What the model is told before all else; the same places stand for the same."),
        widget=forms.Textarea(attrs={**INPUT, "rows": 3}),
    )
    temperature = forms.FloatField(
        label=_("Temperature"),
        min_value=0,
        max_value=2,
        required=False,
        help_text=_("0 always takes the likeliest word; higher is more varied."),
        widget=forms.NumberInput(attrs={**INPUT, "step": "0.1"}),
    )
    max_tokens = forms.IntegerField(
        label=_("Longest answer, in tokens"),
        min_value=1,
        required=False,
        widget=forms.NumberInput(attrs=INPUT),
    )
    inputs = forms.CharField(
        label=_("Inputs"),
        required=False,
        help_text=_(
            'What callers hand in by name, as JSON: [{"name": "order_id", "type": "text"}].'
        ),
        widget=forms.Textarea(attrs={**INPUT, "rows": 3, "spellcheck": "false"}),
    )
    schema = forms.CharField(
        label=_("JSON Schema of the answer"),
        required=False,
        help_text=_("The answer is held to it; without one it is free text."),
        widget=forms.Textarea(attrs={**INPUT, "rows": 3, "spellcheck": "false"}),
    )
    opening = forms.CharField(
        label=_("Opening words"),
        max_length=MOST_TEMPLATE_CHARS,
        required=False,
        widget=forms.Textarea(attrs={**INPUT, "rows": 2}),
    )
    disclaimer = forms.CharField(
        label=_("Disclaimer"),
        max_length=MOST_TEMPLATE_CHARS,
        required=False,
        help_text=_("It is shown under each answer."),
        widget=forms.Textarea(attrs={**INPUT, "rows": 2}),
    )
    note = forms.CharField(
        label=_("Note"),
        max_length=200,
        required=False,
        help_text=_("What this version changes, for whoever reads the list of versions."),
        widget=forms.TextInput(attrs=INPUT),
    )

    def __init__(self, request: HttpRequest, subject: App | None = None, **kwargs: Any) -> None:
        self.before = None if subject is None else newest_spec(subject)
        super().__init__(request, subject, **kwargs)
        served = served_models(Task.GENERATE)
        kept = self.before.model if self.before is not None else ""
        names = served if not kept or kept in served else [kept, *served]
        self.fields["model"].choices = [(n, n) for n in names]  # type: ignore[attr-defined]
        bases = [(str(b.pk), b.name) for b in KnowledgeBase.objects.all()]
        self.fields["knowledge"].choices = bases  # type: ignore[attr-defined]
        if not bases:
            self.fields["knowledge"].help_text = _("There is no knowledge base yet.")
            if subject is None:
                self.fields["prompt"].initial = "{{query}}"

    def initial_of(self, subject: App) -> dict[str, Any]:
        spec = self.before
        assert spec is not None, "an app has a version"
        shown = msgspec.to_builtins(spec)
        return {
            **{n: getattr(spec, n) for n in ("model", "prompt", "instructions", "opening")},
            "disclaimer": spec.disclaimer,
            "knowledge": [str(one.knowledge_base_id) for one in spec.knowledge],
            "temperature": spec.sampling.temperature,
            "max_tokens": spec.sampling.max_tokens,
            "inputs": json.dumps(shown["inputs"], ensure_ascii=False) if spec.inputs else "",
            "schema": json.dumps(spec.schema, ensure_ascii=False) if spec.schema else "",
        }

    def clean_inputs(self) -> list[Any]:
        read = _json(self.cleaned_data["inputs"])
        if read is not None and not isinstance(read, list):
            raise forms.ValidationError(_("It must be a JSON array."))
        return read or []

    def clean_schema(self) -> dict[str, Any] | None:
        read = _json(self.cleaned_data["schema"])
        if read is not None and not isinstance(read, dict):
            raise forms.ValidationError(_("It must be a JSON object."))
        return read

    def document(self, data: dict[str, Any]) -> dict[str, Any]:
        """The specification: what is typed, and what this form does not show as it was."""
        before = self.before
        known = {} if before is None else {one.knowledge_base_id: one for one in before.knowledge}
        chosen = [
            known.get(base_id, Knowledge(base_id)) for base_id in map(UUID, data["knowledge"])
        ]
        document: dict[str, Any] = {} if before is None else msgspec.to_builtins(before)
        sampling = {
            **document.get("sampling", {}),
            "temperature": data["temperature"],
            "max_tokens": data["max_tokens"],
        }
        shown = ("model", "prompt", "instructions", "inputs", "schema", "opening", "disclaimer")
        return {
            **document,
            **{name: data[name] for name in shown},
            "knowledge": msgspec.to_builtins(chosen),
            "sampling": sampling,
        }


class NewAppForm(_NamedForm, SpecForm):
    """An app with its first version."""

    slug = forms.CharField(
        label=_("Short name"),
        max_length=MOST_SLUG_CHARS,
        help_text=_("Callers name the app by it: a-z, 0-9 and hyphens. It never changes."),
        widget=forms.TextInput(attrs={**INPUT, "autofocus": True}),
    )
    mode = forms.ChoiceField(
        label=_("Mode"), choices=AppMode.choices, widget=forms.Select(attrs=INPUT)
    )

    field_order = ("slug", "name", "description", "mode")


class PublishForm(EmptyForm):
    """Which version callers get."""

    number = forms.TypedChoiceField(
        label=_("Version"), coerce=int, widget=forms.Select(attrs=INPUT)
    )

    def __init__(self, request: HttpRequest, subject: App, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        self.fields["number"].choices = [  # type: ignore[attr-defined]
            (v.number, f"{v.number} · {v.note}" if v.note else str(v.number))
            for v in versions(subject)
        ]
        self.fields["number"].initial = subject.latest


def _json(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise forms.ValidationError(_("It is not JSON.")) from None
