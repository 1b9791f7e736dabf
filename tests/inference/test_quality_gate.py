"""Quantized versions below their model's gate are not served."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from django.test import Client

from inference.artefacts import Manifest, import_byte_level
from inference.artefacts.manifest import file_entry
from inference.models import Deployment, Model, ModelVersion
from inference.quality_services import set_quality_gate
from inference.quantization.description import LAYOUT, Description, ModuleScheme, Quality
from inference.services import (
    create_deployment,
    register_model_version,
    set_deployment_enabled,
)
from portal.core.actors import PlatformRole
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound
from portal.core.ids import uuid7
from tests import factories
from tests.api.callers import session_caller
from tests.factories import TESTS, Organisation, unique

GOOD = Quality(0.27, 18.2, 18.1, 0.984, 2048, "a" * 64)


def administrator(role: PlatformRole) -> Client:
    client = Client()
    client.force_login(factories.administrator(role).user)
    return client


@dataclass(slots=True)
class Catalogue:
    """Registers versions of a model whose artefacts claim what the test says."""

    folder: Path
    name: str

    def register(
        self,
        quality: Quality | None = GOOD,
        *,
        origin: str = "platform",
        label: str = "1",
        damage: str = "",
    ) -> ModelVersion:
        manifest = import_byte_level(self.folder, context_length=2048)
        path = self.folder / manifest.id
        if origin != "none":
            manifest = self._described(path, manifest, quality, origin)
        if damage:
            (path / "quantization.json").write_text(damage)
        return register_model_version(
            context=TESTS, name=self.name, label=label, manifest=manifest, path=path
        )

    def _described(
        self, path: Path, manifest: Manifest, quality: Quality | None, origin: str
    ) -> Manifest:
        description = Description(
            LAYOUT,
            "int8",
            32,
            origin,  # type: ignore[arg-type]
            "b" * 64,
            {"lm_head": ModuleScheme("linear", 8, 32)},
            quality,
        )
        (path / "quantization.json").write_bytes(msgspec.json.encode(description))
        files = manifest.files | {"quantization.json": file_entry(path / "quantization.json")}
        manifest = msgspec.structs.replace(manifest, files=files, quantization=description.label)
        (path / "manifest.json").write_bytes(msgspec.json.encode(manifest))
        return manifest


def deploy(version: ModelVersion, *, enabled: bool = True) -> Deployment:
    return create_deployment(
        context=TESTS, name=unique("gate"), version_id=version.id, engine="fake", enabled=enabled
    )


@pytest.fixture
def catalogue(database: None, tmp_path: Path) -> Iterator[Catalogue]:
    made = Catalogue(tmp_path, unique("quantized"))
    yield made
    for deployment in Deployment.objects.filter(model__name=made.name, enabled=True):
        set_deployment_enabled(context=TESTS, deployment_id=deployment.id, enabled=False)


def test_register_keeps_what_was_measured(catalogue: Catalogue) -> None:
    version = catalogue.register()
    version.refresh_from_db()
    assert version.quality == {
        "method": "int8-g32",
        "origin": "platform",
        "measured": msgspec.to_builtins(GOOD),
    }
    assert deploy(version).enabled


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"top1_agreement": 0.912}, "91.20% of places, 5.80 points below the 97.00%"),
        ({"size_ratio": 0.41}, "0.410 of the size in fp32, 0.110 above the 0.300"),
        ({"top1_agreement": 0.5, "size_ratio": 0.5}, "and takes"),
    ],
)
def test_deploy_below_the_gate_says_by_how_much(
    catalogue: Catalogue, changes: dict[str, float], words: str
) -> None:
    version = catalogue.register(msgspec.structs.replace(GOOD, **changes))
    with pytest.raises(Conflict, match=words) as refusal:
        deploy(version)
    assert "more bits" in refusal.value.message
    with pytest.raises(Conflict):
        deploy(version, enabled=False)
    assert not Deployment.objects.filter(version=version).exists()


def test_deploy_at_the_gate_is_accepted(catalogue: Catalogue) -> None:
    edge = msgspec.structs.replace(GOOD, top1_agreement=0.97, size_ratio=0.3)
    assert deploy(catalogue.register(edge)).enabled


def test_deploy_of_what_was_never_measured_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(Conflict, match="never measured.*--text"):
        deploy(catalogue.register(None))


@pytest.mark.parametrize("origin", ["publisher", "none"])
def test_deploy_of_weights_that_others_quantized_is_accepted(
    catalogue: Catalogue, origin: str
) -> None:
    assert deploy(catalogue.register(None, origin=origin)).enabled


def test_register_of_a_changed_description_is_refused(catalogue: Catalogue) -> None:
    better = msgspec.json.encode({"quality": "excellent"}).decode()
    with pytest.raises(Invalid, match=r"quantization\.json is not what was written"):
        catalogue.register(damage=better)
    assert not ModelVersion.objects.filter(model__name=catalogue.name).exists()


def test_enable_below_a_gate_that_was_raised_is_refused(catalogue: Catalogue) -> None:
    deployment = deploy(catalogue.register())
    set_quality_gate(
        context=TESTS, model_id=deployment.model_id, least_agreement=0.99, most_size=0.3
    )
    deployment.refresh_from_db()
    assert deployment.enabled
    set_deployment_enabled(context=TESTS, deployment_id=deployment.id, enabled=False)
    with pytest.raises(Conflict, match=r"98\.40% .*99\.00%"):
        set_deployment_enabled(context=TESTS, deployment_id=deployment.id, enabled=True)
    set_quality_gate(
        context=TESTS, model_id=deployment.model_id, least_agreement=0.98, most_size=0.3
    )
    assert set_deployment_enabled(context=TESTS, deployment_id=deployment.id, enabled=True).enabled


@pytest.mark.parametrize(
    ("least", "most", "param"), [(1.01, 0.3, "least_agreement"), (0.9, 0.0, "most_size")]
)
def test_set_gate_out_of_range_names_the_field(
    catalogue: Catalogue, least: float, most: float, param: str
) -> None:
    model = catalogue.register().model
    with pytest.raises(Invalid) as refusal:
        set_quality_gate(context=TESTS, model_id=model.id, least_agreement=least, most_size=most)
    assert refusal.value.param == param


def test_set_gate_takes_the_role(catalogue: Catalogue, tenant_a: Organisation) -> None:
    model = catalogue.register().model
    with pytest.raises(Forbidden):
        set_quality_gate(
            context=tenant_a.owner.context,
            model_id=model.id,
            least_agreement=0.0,
            most_size=1.0,
        )
    model.refresh_from_db()
    assert model.least_agreement == 0.97


def test_set_gate_of_no_model_is_not_found(database: None) -> None:
    with pytest.raises(NotFound):
        set_quality_gate(context=TESTS, model_id=uuid7(), least_agreement=0.9, most_size=0.3)


def test_model_page_shows_quality_and_sets_the_gate(
    catalogue: Catalogue,
) -> None:
    version = catalogue.register()
    catalogue.register(None, label="2")
    system = administrator(PlatformRole.SYSTEM)
    path = f"/admin/inference/model/{version.model_id}/"
    page = system.get(path).content.decode()
    assert "98.40% of tokens as unquantized, 0.270 of the size in fp32" in page
    assert "Not measured" in page
    assert system.post(f"{path}quality-gate/", {"least_agreement": "0.9"}).status_code == 400
    sent = {"least_agreement": "0.9", "most_size": "0.25"}
    assert system.post(f"{path}quality-gate/", sent).status_code == 302
    model = Model.objects.get(pk=version.model_id)
    assert (model.least_agreement, model.most_size) == (0.9, 0.25)
    assert administrator(PlatformRole.AUDIT).post(f"{path}quality-gate/", sent).status_code == 403


def test_api_sets_the_gate_and_shows_what_was_measured(catalogue: Catalogue) -> None:
    version = catalogue.register()
    deploy(version)
    system = session_caller(factories.administrator(PlatformRole.SYSTEM).user)
    sent = {"least_agreement": 0.95, "most_size": 0.28}
    answer = system.call("PUT", f"models/{version.model_id}/quality-gate", sent)
    assert (answer.status_code, answer.json()) == (200, sent)
    pages = system.get("models").json()["items"]
    (shown,) = [model for model in pages if model["name"] == catalogue.name]
    assert shown["quality"] == msgspec.to_builtins(GOOD)
    assert system.call("PUT", f"models/{uuid7()}/quality-gate", sent).status_code == 404
