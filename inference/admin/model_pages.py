"""Admin pages of models and their versions."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from inference.admin.catalogue_forms import (
    ModelForm,
    PriceForm,
    VersionForm,
)
from inference.admin.file_checks import check_text
from inference.admin.platform import PlatformPage, deployment_link
from inference.admin.quality import GateForm, quality_text, set_gate
from inference.admin.words import money
from inference.models import Model, ModelPrice, ModelVersion, Task
from inference.services import (
    edit_model,
    register_artefact,
    set_price,
)
from inference.verification import ask_for_check
from portal.core.pages import (
    FormPage,
    ServiceForm,
    context_of,
    display,
    may,
)
from tenants.admin.keys import on_example_model
from tenants.permissions import Action


def price_text(price: ModelPrice | None) -> str:
    """A price a million tokens in words; empty where there is none."""
    if price is None:
        return ""
    return gettext("%(prompt)s for prompts, %(completion)s for answers") % {
        "prompt": money(price.prompt_micros_per_million * 1000, price.currency),
        "completion": money(price.completion_micros_per_million * 1000, price.currency),
    }


def served_model() -> str:
    """Name of a model that is served, for examples; empty where there is none."""
    generating = Model.objects.filter(task=Task.GENERATE)
    served = generating.filter(deployments__enabled=True).order_by("name")
    return served.values_list("name", flat=True).first() or ""


on_example_model(served_model)


def _register(request: HttpRequest, _obj: None, data: dict[str, Any]) -> str:
    version = register_artefact(context=context_of(request), **data)
    return reverse("admin:inference_model_change", args=[version.model_id])


def _edit_model(request: HttpRequest, model: Model, data: dict[str, Any]) -> str:
    edit_model(context=context_of(request), model_id=model.pk, **data)
    return reverse("admin:inference_model_change", args=[model.pk])


def _set_price(request: HttpRequest, version: ModelVersion, data: dict[str, Any]) -> str:
    set_price(
        context=context_of(request),
        version_id=version.pk,
        prompt_micros_per_million=int(data["prompt"] * 1_000_000),
        completion_micros_per_million=int(data["completion"] * 1_000_000),
        currency=data["currency"],
    )
    return reverse("admin:inference_modelversion_change", args=[version.pk])


def _verify(request: HttpRequest, version: ModelVersion, _data: dict[str, Any]) -> str:
    ask_for_check(context=context_of(request), version_id=version.pk)
    return reverse("admin:inference_modelversion_change", args=[version.pk])


@admin.register(ModelVersion)
class ModelVersionAdmin(PlatformPage):
    """Artefacts as versions of models, and their prices."""

    view_action = Action.DEPLOYMENT_READ
    pages = (
        FormPage(
            "price",
            Action.MODEL_EDIT,
            _("Set price"),
            PriceForm,
            _set_price,
            button=_("Set price"),
            intro=_("Holds for calls from now on; what was called before keeps its price."),
            done=_("The price is set."),
        ),
        FormPage(
            "verify",
            Action.MODEL_EDIT,
            _("Verify files"),
            ServiceForm,
            _verify,
            button=_("Verify files"),
            intro=_(
                "Every file is read and compared with what was registered. Of many gigabytes this "
                "takes minutes; the version is served all the while."
            ),
            done=_("The files are going to be read; this page says how far it is."),
        ),
    )
    detail_template = "site/version.html"
    empty_title = _("No version yet")
    empty_text = _("Register an imported artefact as a version of a model.")
    list_display = ("__str__", "architecture", "quantization", "context_length", "created_at")
    search_fields = ("model__name", "label", "digest")
    ordering = ("model__name", "label")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.live_view)
        live = path("<uuid:object_id>/live/", view, name="inference_modelversion_live")
        return [*super().get_urls(), live]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelVersion]:
        found = ModelVersion.objects.select_related("model", "check_asked")
        return found.prefetch_related("prices")

    def live_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        """How far a check of the files is, asked for every other second while it is looked at."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        version = ModelVersion.objects.select_related("check_asked").filter(pk=object_id).first()
        if version is None:
            raise Http404
        return render(request, "site/version_live.html", {"check": check_text(version)})

    def detail_context(self, request: HttpRequest, obj: ModelVersion) -> dict[str, Any]:
        prices = sorted(obj.prices.all(), key=lambda p: p.effective_from, reverse=True)
        files = sorted((obj.files or {}).items())
        return {
            "check": check_text(obj),
            "live": self.url("live", obj),
            "prices": [(price, price_text(price)) for price in prices],
            "files": [
                (name, filesizeformat(entry["size"]), entry["sha256"]) for name, entry in files
            ],
            "deployments": [(d.name, deployment_link(d.pk)) for d in obj.deployments.all()],
            "facts": [
                (_("Model"), obj.model.name),
                (_("Version"), obj.label),
                (_("Format"), obj.format),
                (_("Architecture"), obj.architecture),
                (_("Quantization"), obj.quantization),
                (_("Quality"), quality_text(obj)),
                (_("Context length"), obj.context_length),
                (_("Licence"), obj.licence),
                (_("Provenance"), obj.provenance),
                (_("Size"), filesizeformat(sum(entry["size"] for _name, entry in files))),
                (_("Digest"), obj.digest),
                (_("Folder"), obj.path),
                (_("Created"), obj.created_at),
            ],
        }


@admin.register(Model)
class ModelPages(PlatformPage):
    """The catalogue of models."""

    view_action = Action.MODEL_READ
    side = "any"
    add_page = FormPage(
        "add",
        Action.MODEL_EDIT,
        _("Register a version"),
        VersionForm,
        _register,
        button=_("Register version"),
        intro=_("An artefact that was imported on the server becomes a version of a model."),
        done=_("The version is registered; set its price, and deploy it."),
    )
    pages = (
        FormPage(
            "edit",
            Action.MODEL_EDIT,
            _("Edit"),
            ModelForm,
            _edit_model,
            button=_("Save"),
            done=_("Saved."),
        ),
        FormPage(
            "quality-gate",
            Action.MODEL_EDIT,
            _("Quality gate"),
            GateForm,
            set_gate,
            button=_("Save"),
            intro=_("A quantized version that is worth less is neither deployed nor enabled."),
            done=_("The quality gate is set."),
        ),
    )
    detail_template = "site/model.html"
    empty_title = _("No model yet")
    empty_text = _("Models are imported with the command manage.py model import.")
    list_display = ("name", "title", "task", "served", "created_at")
    list_filter = ("task",)
    search_fields = ("name", "title")
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        return Model.objects.annotate(
            serving=Count("deployments", filter=Q(deployments__enabled=True))
        )

    @display(description=_("Served"), boolean=True)
    def served(self, model: Any) -> bool:
        return bool(model.serving)

    def detail_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        now = timezone.now()
        versions = []
        for version in ModelVersion.objects.filter(model=obj).prefetch_related("prices"):
            prices = [p for p in version.prices.all() if p.effective_from <= now]
            price = max(prices, key=lambda p: p.effective_from, default=None)
            versions.append((version, price_text(price), quality_text(version)))
        return {
            "facts": [
                (_("Title"), obj.title),
                (_("Description"), obj.description),
                (_("Task"), obj.get_task_display()),
                (_("Served"), _("Yes") if obj.serving else _("No")),
                (_("Least agreement"), f"{obj.least_agreement:.2%}"),
                (_("Largest size"), f"{obj.most_size:.3f}"),
            ],
            "versions": versions,
            "linked": may(request, Action.DEPLOYMENT_READ),
        }
