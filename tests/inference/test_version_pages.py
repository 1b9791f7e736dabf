"""Model versions on the pages and the management API: artefacts are the platform's business."""

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from inference.artefacts import import_model
from inference.models import ModelVersion
from inference.services import register_model_version
from portal.core.actors import PlatformRole
from tests import factories
from tests.factories import Organisation, unique
from tests.inference.model_folders import write_folder


@pytest.fixture
def version(database: None, tmp_path: Path) -> ModelVersion:
    name = unique("page")
    manifest = import_model(
        write_folder(tmp_path / "source"), tmp_path / "store", name=name, provenance="the vault"
    )
    return register_model_version(
        context=factories.TESTS,
        name=name,
        label="7",
        manifest=manifest,
        path=tmp_path / "store" / manifest.id,
    )


def page_of(user: Any, page: str) -> str:
    client = Client()
    client.force_login(user)
    response = client.get(f"/admin/inference/{page}/")
    assert response.status_code == 200
    return response.content.decode()


def test_page_shows_the_artefact_to_the_system_administrator(version: ModelVersion) -> None:
    page = page_of(factories.administrator(PlatformRole.SYSTEM).user, f"modelversion/{version.pk}")
    assert version.files is not None
    for text in ("safetensors", "apache-2.0", "the vault", version.path, version.digest):
        assert text in page
    for name, entry in version.files.items():
        assert name in page
        assert entry["sha256"] in page


def test_page_shows_members_no_folder_and_no_files(
    version: ModelVersion, tenant_a: Organisation
) -> None:
    page = page_of(tenant_a.developer.user, f"model/{version.model_id}")
    assert version.digest in page
    for text in ("the vault", version.path, "config.json"):
        assert text not in page


def test_api_lists_versions_with_their_files(version: ModelVersion) -> None:
    client = Client()
    client.force_login(factories.administrator(PlatformRole.SYSTEM).user)
    response = client.get("/api/v1/model-versions")
    assert response.status_code == 200
    (found,) = [row for row in response.json()["items"] if row["id"] == str(version.id)]
    assert (found["format"], found["licence"], found["provenance"]) == (
        "safetensors",
        "apache-2.0",
        "the vault",
    )
    assert found["digest"] == version.digest
    assert version.files is not None
    assert found["files"] == [
        {"name": name, **entry} for name, entry in sorted(version.files.items())
    ]
