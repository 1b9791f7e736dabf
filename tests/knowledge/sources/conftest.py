"""What the tests of sources stand on."""

from pathlib import Path

import pytest

from knowledge.models import KnowledgeBase
from portal.core.env import env
from tests.factories import Organisation
from tests.knowledge.sources.support import make_base


@pytest.fixture
def root(tmp_path: Path, tenant_a: Organisation, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the operator gave to the first tenant, and to no other."""
    given = tmp_path / "given"
    given.mkdir()
    allowed = f"{tenant_a.tenant.slug}={given}"
    known = env().model_copy(update={"source_folders": allowed})
    monkeypatch.setattr("knowledge.sources.settings.env", lambda: known)
    return given


@pytest.fixture
def base(tenant_a: Organisation) -> KnowledgeBase:
    return make_base(tenant_a)
