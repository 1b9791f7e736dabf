"""Forms of knowledge bases and of their documents."""

from typing import Any
from uuid import UUID

from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from inference.models import Task
from knowledge.connections.selectors import connections
from knowledge.models import KnowledgeBase, Method
from knowledge.models.bases import DEFAULT_TEMPLATE, MOST_NAME_CHARS, MOST_TOP_K
from knowledge.retrieval import MOST_QUERY_CHARS
from knowledge.selectors import served_models
from knowledge.services.bases import MOST_TEMPLATE_CHARS
from portal.core.pages import INPUT, ServiceForm

_NONE = ("", _("None"))


class BaseForm(ServiceForm):
    """What a knowledge base is called, and how it is searched."""

    name = forms.CharField(
        label=_("Name"),
        max_length=MOST_NAME_CHARS,
        widget=forms.TextInput(attrs={**INPUT, "autofocus": True}),
    )
    description = forms.CharField(
        label=_("Description"),
        max_length=400,
        required=False,
        widget=forms.TextInput(attrs=INPUT),
    )
    embedding_model = forms.ChoiceField(
        label=_("Embedding model"),
        required=False,
        help_text=_("It finds passages by their meaning. Without one only words are found."),
        widget=forms.Select(attrs=INPUT),
    )
    method = forms.ChoiceField(
        label=_("Search by"), choices=Method.choices, widget=forms.Select(attrs=INPUT)
    )
    top_k = forms.IntegerField(
        label=_("Passages"),
        min_value=1,
        max_value=MOST_TOP_K,
        initial=5,
        help_text=_("How many are found at most."),
        widget=forms.NumberInput(attrs=INPUT),
    )
    score_threshold = forms.FloatField(
        label=_("Least score"),
        min_value=0,
        max_value=1,
        required=False,
        help_text=_("From 0 to 1. Passages that score less are left out."),
        widget=forms.NumberInput(attrs={**INPUT, "step": "0.05"}),
    )
    rerank_model = forms.ChoiceField(
        label=_("Reranking model"),
        required=False,
        help_text=_("It orders what was found anew: slower, and often better."),
        widget=forms.Select(attrs=INPUT),
    )
    connection_id = forms.TypedChoiceField(
        label=_("Connection to Dify"),
        required=False,
        coerce=UUID,
        empty_value=None,
        help_text=_("It stands there too, and is kept as it is here."),
        widget=forms.Select(attrs=INPUT),
    )
    prompt_template = forms.CharField(
        label=_("Prompt template"),
        max_length=MOST_TEMPLATE_CHARS,
        initial=DEFAULT_TEMPLATE,
        help_text=_("{{context}} stands for the passages, {{query}} for the question."),
        widget=forms.Textarea(attrs={**INPUT, "rows": 6}),
    )

    def __init__(self, request: HttpRequest, subject: Any = None, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        there = [(str(c.pk), c.name) for c in connections().order_by("name")]
        self.fields["connection_id"].choices = [_NONE, *there]  # type: ignore[attr-defined]
        embedding = served_models(Task.EMBED)
        ranking = served_models(Task.RERANK, Task.EMBED)
        for field, served in (("embedding_model", embedding), ("rerank_model", ranking)):
            kept = getattr(subject, field, "")
            names = served if not kept or kept in served else [kept, *served]
            self.fields[field].choices = [_NONE, *((n, n) for n in names)]  # type: ignore[attr-defined]
        if subject is None and embedding:
            self.fields["embedding_model"].initial = embedding[0]
            self.fields["method"].initial = Method.HYBRID
        elif subject is None:
            self.fields["method"].initial = Method.FULL_TEXT


class EmptyForm(ServiceForm):
    """A form that only asks whether one means it."""

    def initial_of(self, subject: Any) -> dict[str, Any]:
        return {}


class TextForm(EmptyForm):
    """A text as a document."""

    name = forms.CharField(
        label=_("Name"),
        max_length=200,
        help_text=_("A name that is there already gets a new version."),
        widget=forms.TextInput(attrs={**INPUT, "autofocus": True}),
    )
    text = forms.CharField(
        label=_("Text"), strip=False, widget=forms.Textarea(attrs={**INPUT, "rows": 14})
    )


class AskForm(EmptyForm):
    """A question to try."""

    query = forms.CharField(
        label=_("Question"),
        max_length=MOST_QUERY_CHARS,
        widget=forms.TextInput(attrs={**INPUT, "autofocus": True}),
    )
    method = forms.ChoiceField(
        label=_("Search by"), choices=Method.choices, widget=forms.Select(attrs=INPUT)
    )

    def initial_of(self, subject: KnowledgeBase) -> dict[str, Any]:
        return {"method": subject.method}
