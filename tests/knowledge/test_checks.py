"""A database without pgvector is told what to do."""

import pytest
from django.core.checks import run_checks
from django.core.checks.registry import Tags

from knowledge import checks


def test_database_with_pgvector_passes(database: None) -> None:
    found = run_checks(tags=[Tags.database], databases=["default"])
    assert [check for check in found if check.id == "knowledge.E001"] == []


def test_database_without_pgvector_says_what_to_do(
    database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = checks._INSTALLED.replace("'vector'", "'vector_of_nobody'")
    monkeypatch.setattr(checks, "_INSTALLED", absent)
    (fault,) = checks.vectors_can_be_compared(None, ["default"])
    assert "CREATE EXTENSION vector" in str(fault.hint)
