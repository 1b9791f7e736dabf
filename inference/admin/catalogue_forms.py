"""Forms of the catalogue: models, versions, prices, deployments."""

import json
from collections.abc import Mapping
from typing import Any

from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from inference.artefacts.store import artefacts
from inference.engines import engine_names
from inference.models import Deployment, ModelVersion
from portal.core.env import env
from portal.core.pages import INPUT, ServiceForm

_AREA = {**INPUT, "rows": 3}


class OptionsField(forms.JSONField):
    """Options as a JSON object; an empty field is none."""

    def to_python(self, value: Any) -> Any:
        found = super().to_python(value)
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise forms.ValidationError(_('Options are a JSON object, such as {"slots": 8}.'))
        return found

    def prepare_value(self, value: Any) -> Any:
        return json.dumps(value, indent=2) if isinstance(value, dict) else value


class VersionForm(ServiceForm):
    """An imported artefact as a version of a model."""

    name = forms.SlugField(
        label=_("Model"),
        max_length=80,
        help_text=_("What callers put into “model”. A name that is new makes a new model."),
        widget=forms.TextInput(attrs={**INPUT, "autofocus": True}),
    )
    label = forms.CharField(
        label=_("Version"), max_length=40, initial="1", widget=forms.TextInput(attrs=INPUT)
    )
    artefact = forms.ChoiceField(
        label=_("Artefact"),
        help_text=_("Folders of this installation's models."),
        widget=forms.Select(attrs=INPUT),
    )
    title = forms.CharField(
        label=_("Title"), max_length=120, required=False, widget=forms.TextInput(attrs=INPUT)
    )
    description = forms.CharField(
        label=_("Description"), max_length=2000, required=False, widget=forms.Textarea(attrs=_AREA)
    )

    def __init__(self, request: HttpRequest, subject: Any = None, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        field = self.fields["artefact"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [
            (manifest.id, f"{manifest.name} · {manifest.quantization} · {manifest.id}")
            for manifest in artefacts(env().freehold_data_dir / "models")
        ]


class ModelForm(ServiceForm):
    """What people read of a model."""

    title = forms.CharField(
        label=_("Title"), max_length=120, widget=forms.TextInput(attrs={**INPUT, "autofocus": True})
    )
    description = forms.CharField(
        label=_("Description"), max_length=2000, required=False, widget=forms.Textarea(attrs=_AREA)
    )


class PriceForm(ServiceForm):
    """What a version costs from now on."""

    prompt = forms.DecimalField(
        label=_("A million prompt tokens"),
        min_value=0,
        max_digits=15,
        decimal_places=6,
        widget=forms.NumberInput(attrs={**INPUT, "autofocus": True}),
    )
    completion = forms.DecimalField(
        label=_("A million completion tokens"),
        min_value=0,
        max_digits=15,
        decimal_places=6,
        widget=forms.NumberInput(attrs=INPUT),
    )
    currency = forms.CharField(
        label=_("Currency"),
        min_length=3,
        max_length=3,
        initial="USD",
        widget=forms.TextInput(attrs=INPUT),
    )


class DeploymentForm(ServiceForm):
    """What can be changed of a deployment."""

    version_id = forms.ChoiceField(label=_("Version"), widget=forms.Select(attrs=INPUT))
    engine = forms.ChoiceField(
        label=_("Engine"),
        choices=[(name, name) for name in engine_names()],
        help_text=_("“auto” takes the best for the worker's machine."),
        widget=forms.Select(attrs=INPUT),
    )
    options = OptionsField(
        label=_("Engine options"),
        required=False,
        help_text=_("A JSON object; what is not given stays at the engine's own default."),
        widget=forms.Textarea(attrs={**_AREA, "spellcheck": "false"}),
    )
    context_length = forms.IntegerField(
        label=_("Context length"),
        min_value=1,
        required=False,
        help_text=_("Most tokens of prompt and answer together; the version's own if empty."),
        widget=forms.NumberInput(attrs=INPUT),
    )
    default_max_tokens = forms.IntegerField(
        label=_("Default max_tokens"),
        min_value=1,
        initial=1024,
        help_text=_("Of calls that don't say how long an answer may be."),
        widget=forms.NumberInput(attrs=INPUT),
    )

    def __init__(
        self, request: HttpRequest, subject: Deployment | None = None, **kwargs: Any
    ) -> None:
        super().__init__(request, subject, **kwargs)
        found = ModelVersion.objects.select_related("model").order_by("model__name", "label")
        if subject is not None:
            found = found.filter(model_id=subject.model_id)
        field = self.fields["version_id"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(str(version.pk), str(version)) for version in found]

    def initial_of(self, subject: Deployment) -> Mapping[str, Any]:
        return {**super().initial_of(subject), "version_id": str(subject.version_id)}


class NewDeploymentForm(DeploymentForm):
    """A deployment and its queue."""

    name = forms.SlugField(
        label=_("Name"),
        max_length=60,
        help_text=_("Workers are started with it; it can't be changed later."),
        widget=forms.TextInput(attrs={**INPUT, "autofocus": True}),
    )
    queue = forms.SlugField(
        label=_("Queue"),
        max_length=60,
        required=False,
        help_text=_("Of its workers alone; the deployment's name if empty."),
        widget=forms.TextInput(attrs=INPUT),
    )
    enabled = forms.BooleanField(
        label=_("Enabled"),
        required=False,
        initial=True,
        help_text=_("Calls of the model are admitted at once, and wait until a worker is ready."),
    )
    field_order = ("name", "version_id", "engine", "options", "queue")
