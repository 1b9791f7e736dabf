"""The demo data: made once, found again, its secrets kept by those who were told."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.core.management import call_command

from inference.models import Deployment
from inference.services import set_deployment_enabled
from portal.core.actors import ANONYMOUS, Context, PlatformRole
from tenants.identity.keys import authenticate_api_key
from tenants.models import User
from tests.factories import TESTS

FACTS = {
    "api_key",
    "app",
    "model",
    "deployment",
    "queue",
    "embedding_model",
    "embedding_deployment",
    "embedding_queue",
    *(
        f"{who}_{what}"
        for who in ("admin", "security", "auditor", "tenant_owner")
        for what in ("email", "password")
    ),
}


@pytest.fixture
def facts_file(tmp_path: Path, database: None) -> Iterator[Path]:
    yield tmp_path / "start.json.part"
    # Other tests' portals serve deployments of their own.
    for deployment in Deployment.objects.filter(name__in=["smollm2", "multilingual-e5-small"]):
        set_deployment_enabled(context=TESTS, deployment_id=deployment.id, enabled=False)


def test_seed_twice_keeps_data_and_facts_and_works(
    facts_file: Path, owner_sql: psycopg.Connection
) -> None:
    call_command("seed_demo", "--json", str(facts_file))
    assert stat.S_IMODE(facts_file.stat().st_mode) == 0o600
    facts = json.loads(facts_file.read_text())
    assert set(facts) == FACTS
    _check(facts, owner_sql)
    rows = _rows(owner_sql)
    facts_file.rename(facts_file.with_name("start.json"))
    call_command("seed_demo", "--json", str(facts_file))
    assert json.loads(facts_file.read_text()) == facts
    assert _rows(owner_sql) == rows


def test_seed_after_the_facts_were_lost_makes_new_secrets(
    facts_file: Path, owner_sql: psycopg.Connection
) -> None:
    call_command("seed_demo", "--json", str(facts_file))
    first = json.loads(facts_file.read_text())
    facts_file.write_text("{ torn")
    call_command("seed_demo", "--json", str(facts_file))
    second = json.loads(facts_file.read_text())
    assert second["admin_password"] != first["admin_password"]
    assert second["api_key"] != first["api_key"]
    _check(second, owner_sql)


def _check(facts: dict[str, str], owner_sql: psycopg.Connection) -> None:
    key = authenticate_api_key(facts["api_key"], base=Context(actor=ANONYMOUS))
    assert key.scopes == {"inference", "apps"}
    roles = {"admin": PlatformRole.SYSTEM, "security": "security", "auditor": "audit"}
    for who, role in {**roles, "tenant_owner": None}.items():
        user = User.objects.get(email=facts[f"{who}_email"])
        assert user.check_password(facts[f"{who}_password"])
        assert user.platform_role == role
    deployment = Deployment.objects.select_related("version").get(name=facts["deployment"])
    assert (deployment.queue, deployment.model.name) == (facts["queue"], facts["model"])
    assert deployment.context_length <= min(8192, deployment.version.context_length)
    assert Path(deployment.version.path, "manifest.json").is_file()
    members = owner_sql.execute(
        "SELECT t.slug, m.role FROM tenants_membership m JOIN tenants_tenant t "
        "ON t.id = m.tenant_id WHERE t.slug IN ('tenant-a', 'tenant-b')"
    ).fetchall()
    everyone = ("owner", "developer", "viewer", "auditor")
    assert sorted(members) == sorted((t, r) for t in ("tenant-a", "tenant-b") for r in everyone)


def _rows(owner_sql: psycopg.Connection) -> list[object]:
    tables = [
        "tenants_tenant",
        "tenants_user",
        "tenants_membership",
        "tenants_apikey",
        "tenants_quota",
        "inference_model",
        "inference_modelversion",
        "inference_modelprice",
        "inference_deployment",
        "knowledge_knowledgebase",
        "knowledge_document",
        "knowledge_app",
        "knowledge_appversion",
    ]
    return [owner_sql.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables]
