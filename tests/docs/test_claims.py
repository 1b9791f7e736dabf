"""What the pages list is what the code has: tables, routes, codes, events, roles, engines."""

import re
from collections.abc import Iterable
from pathlib import Path

from django.apps import apps

from audit.models import AuditEvent, Category, Outcome
from inference.engines import engine_names
from inference.fallback import FALLBACK_ACTION
from inference.gateway import calls
from inference.gateway.app import UnknownRoute, routes
from inference.webhooks.events import WebhookEvent
from knowledge.applications.events import AppEvent
from knowledge.connections.events import ConnectionEvent
from knowledge.events import KnowledgeEvent
from knowledge.sources.events import SourceEvent
from knowledge.sync.events import SyncEvent
from knowledge.triggers.events import TriggerEvent
from portal.core.actors import PlatformRole, TenantRole
from portal.core.database_roles import DatabaseRoles
from tenants.events import TEXTS, TenantsEvent
from tenants.permissions import PLATFORM_ACTIONS, TENANT_ACTIONS, Action, Scope
from tests.start.checkouts import REPOSITORY

OURS = ("audit", "tenants", "inference", "knowledge")
# A code is named by a keyword, or stands second or third in one of these calls.
_CODE = re.compile(
    r'\b(?:code|error_code)(?:: ClassVar\[str\])? ?= ?"([a-z_]+)"'
    r'|\binvalid\([^\n]*, "([a-z_]+)"\)'
    r'|(?:\bFailed\([\w.]+|JobState\.[A-Z]+), "([a-z_]+)"'
)
_INTENT = re.compile(r'\bintent\(\s*"([a-z_.]+)"(?: if \w+ else "([a-z_.]+)")?')
_EVENT = re.compile(r'\bEvent\(\s*Category\.\w+,\s*"([a-z_.]+)"')


def page(name: str) -> str:
    return (REPOSITORY / "docs" / name).read_text()


def first_cells(name: str) -> set[str]:
    """Everything in code type in the first column of a page's tables."""
    cells = re.findall(r"^\|([^|\n]+)\|", page(name), re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def sources(*rooms: str) -> Iterable[tuple[Path, str]]:
    for room in rooms:
        for file in sorted((REPOSITORY / room).rglob("*.py")):
            yield file, file.read_text()


def missing(names: Iterable[str], text: str) -> list[str]:
    """The names that a page does not have in code type."""
    return sorted(name for name in set(names) if f"`{name}`" not in text)


def test_architecture_lists_every_table() -> None:
    tables = {
        model._meta.db_table
        for model in apps.get_models()
        if model._meta.app_label in OURS and model._meta.db_table != "audit_logentry"
    }
    listed = {cell for cell in first_cells("architecture.md") if cell.split("_")[0] in OURS}
    readers_and_writer = {"audit_reader", "audit_reader_all", "audit_writer"}
    assert listed - set(OURS) - readers_and_writer == tables


def test_architecture_lists_every_database_role() -> None:
    roles = DatabaseRoles.with_prefix("")
    names = [getattr(roles, field) for field in roles.__dataclass_fields__]
    assert missing(names, page("architecture.md")) == []


def test_api_lists_every_route() -> None:
    every = routes(None)  # type: ignore[arg-type]
    served = {route.path for route in every if not isinstance(route.endpoint, UnknownRoute)}
    listed = {cell.split()[1] for cell in first_cells("api.md") if " /v1" in cell}
    assert listed == served


def test_api_lists_every_error_code_that_the_gateway_gives() -> None:
    rooms = ("inference/gateway", "inference/worker", "inference/engines")
    texts = [text for _, text in sources(*rooms)]
    texts.append((REPOSITORY / "inference" / "sweeper.py").read_text())
    codes = {code for text in texts for found in _CODE.findall(text) for code in found if code}
    assert {"context_length_exceeded", "array_too_long", "worker_lost", "drained"} <= codes
    # An engine's own words for its state, which no caller sees.
    inner = {"engine_closed", "duplicate_request"}
    assert missing(codes - inner, page("api.md")) == []


def test_audit_lists_every_field_category_and_outcome() -> None:
    text = page("audit.md")
    assert missing((str(field.column) for field in AuditEvent._meta.fields), text) == []
    assert missing([*Category.values, *Outcome.values], text) == []


def test_audit_lists_every_action() -> None:
    text = page("audit.md")
    of_calls = {v for n, v in vars(calls).items() if n.isupper() and isinstance(v, str)}
    assert {calls.CHAT, calls.COUNT_TOKENS} <= of_calls
    named = of_calls | {e.value for e in TenantsEvent} | {e.value for e in WebhookEvent}
    named |= {FALLBACK_ACTION} | {e.value for e in ConnectionEvent}
    named |= {e.value for e in KnowledgeEvent} | {e.value for e in AppEvent}
    named |= {e.value for e in SyncEvent} | {e.value for e in SourceEvent}
    named |= {e.value for e in TriggerEvent}
    for _, source in sources(*OURS, "portal"):
        named |= {name for pair in _INTENT.findall(source) for name in pair if name}
        named |= set(_EVENT.findall(source))
    assert {"audit.list", "platform.scope", "deployment.enable"} <= named
    assert missing(named, text) == []


def test_every_event_has_a_text() -> None:
    assert set(TEXTS) == set(TenantsEvent)


def test_security_lists_every_role_and_scope() -> None:
    text = page("security.md")
    assert missing([r.value for r in (*PlatformRole, *TenantRole)], text) == []
    assert missing([scope.value for scope in Scope], text) == []


def test_security_shows_the_permission_table() -> None:
    tables = {
        role.value: actions
        for kind in (PLATFORM_ACTIONS, TENANT_ACTIONS)
        for role, actions in kind.items()
    }
    shown = {
        action: {role for role, cell in zip(tables, cells.split("|"), strict=True) if cell.strip()}
        for action, cells in re.findall(
            r"^\| `([a-z_.]+)` \|([yes |]+)\|$", page("security.md"), re.MULTILINE
        )
    }
    assert shown == {
        action.value: {role for role, actions in tables.items() if action in actions}
        for action in Action
    }


def test_operations_lists_every_engine() -> None:
    assert missing(engine_names(), page("operations.md")) == []
