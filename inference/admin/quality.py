"""What quantized versions must be worth, on the pages of models."""

from typing import Any

from django import forms
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from inference.models import Model, ModelVersion
from inference.quality_services import measured, set_quality_gate
from portal.core.pages import (
    INPUT,
    ServiceForm,
    context_of,
)


class GateForm(ServiceForm):
    """What quantized versions must be worth."""

    least_agreement = forms.FloatField(
        label=_("Least agreement"),
        min_value=0,
        max_value=1,
        help_text=_(
            "Share of places, 0 to 1, where a quantized version must choose the unquantized "
            "model's token."
        ),
        widget=forms.NumberInput(attrs={**INPUT, "step": "any"}),
    )
    most_size = forms.FloatField(
        label=_("Largest size"),
        min_value=0,
        max_value=1,
        help_text=_("Of a quantized version's weights, over their size in fp32."),
        widget=forms.NumberInput(attrs={**INPUT, "step": "any"}),
    )


def set_gate(request: HttpRequest, model: Model, data: dict[str, Any]) -> str:
    set_quality_gate(context=context_of(request), model_id=model.pk, **data)
    return reverse("admin:inference_model_change", args=[model.pk])


def quality_text(version: ModelVersion) -> str:
    """A version's quality in words; empty where its weights are not quantized here."""
    found = measured(version)
    if found is None:
        return "" if version.quality is None else gettext("Not measured")
    return gettext(
        "%(agreement)s of tokens as unquantized, %(size)s of the size in fp32, perplexity "
        "%(change)s (%(tokens)d tokens of text %(text)s)"
    ) % {
        "agreement": f"{found.top1_agreement:.2%}",
        "size": f"{found.size_ratio:.3f}",
        "change": f"{found.perplexity_change:+.2%}",
        "tokens": found.tokens,
        "text": found.text_sha256[:8],
    }
