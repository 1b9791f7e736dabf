"""The committed OpenAPI file is the API's."""

from pathlib import Path

from django.core.management import call_command

from tests.api.callers import Caller

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.yaml"


def test_generate_schema_equals_the_committed_file(tmp_path: Path) -> None:
    generated = tmp_path / "openapi.yaml"
    call_command("spectacular", "--file", str(generated), "--validate", "--fail-on-warn")
    assert generated.read_text() == COMMITTED.read_text(), (
        "The API has changed: run `manage.py spectacular --file docs/openapi.yaml`."
    )


def test_serve_documentation_loads_nothing_from_outside(owner: Caller) -> None:
    page = owner.get("docs").content.decode()
    assert "http://" not in page.replace("http://testserver", "")
    assert "https://" not in page
    assert "<script>" not in page
    assert owner.get("openapi.yaml").status_code == 200
    assert owner.get("docs?script=").status_code == 200
