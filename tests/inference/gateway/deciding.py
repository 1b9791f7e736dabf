"""Keys, calls and quota windows for tests of the decision behind admission."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from inference.gateway.admission import Ask, Call, Ledger, Refused, Window
from inference.gateway.keys import Credential, KeyFacts
from portal.core.crypto import Peppers
from tenants.models.quotas import METRICS, WINDOWS
from tenants.windows import window_starts

NOW = datetime(2026, 3, 14, 15, 9, 26, 535897, tzinfo=UTC)
PEPPERS = Peppers({1: b"p" * 32, 2: b"q" * 32})
TENANT, OTHER_TENANT = UUID(int=1), UUID(int=2)
USER, OTHER_USER = UUID(int=11), UUID(int=12)
KEY, OTHER_KEY = UUID(int=21), UUID(int=22)
MODEL, OTHER_MODEL = UUID(int=31), UUID(int=32)
DEPLOYMENT = UUID(int=41)
SPANS = ("minute", "day", "month")


def key(public_id: str = "k", **changes: Any) -> KeyFacts:
    """A good key; its secret is ``s``."""
    facts = KeyFacts(
        public_id=public_id,
        id=KEY,
        tenant_id=TENANT,
        user_id=USER,
        name="till",
        kind="standard",
        secret_hmac=PEPPERS.digest(b"s")[1],
        pepper_version=2,
        generation=1,
        former_secret_hmac=None,
        former_pepper_version=None,
        former_until=None,
        session_hmac=None,
        scopes=frozenset({"inference"}),
        allowed_models=None,
        allowed_networks=None,
        expires_at=None,
        revoked_at=None,
        tenant_state="active",
        time_zone="UTC",
        weight=1,
        user_active=True,
        data_key_version=1,
        data_key=b"",
    )
    return replace(facts, **changes)


def ask(prompt: int = 10, completion: int = 20, **changes: Any) -> Ask:
    """A generation; a prompt token costs 2, a completion token 3 thousandths of a micro-unit."""
    return replace(Ask(MODEL, "m", DEPLOYMENT, prompt, completion, 2_000, 3_000), **changes)


def call(public_id: str = "k", **changes: Any) -> Call:
    return replace(Call(Credential(public_id, "s"), ask()), **changes)


def window(limits: Mapping[str, int] | None = None, **changes: Any) -> Window:
    """A tenant's quota, empty and of this moment."""
    facts: dict[str, Any] = {
        "quota_id": UUID(int=100),
        "tenant_id": TENANT,
        "user_id": None,
        "api_key_id": None,
        "model_id": None,
        "limits": dict(limits or {}),
        "starts": window_starts(NOW, "UTC"),
        "taken": {f"{metric}_{span}": 0 for metric in METRICS for span in WINDOWS},
        "active": 0,
        "time_zone": "UTC",
    }
    taken = changes.pop("taken", {})
    made = Window(**{**facts, **changes})
    made.taken.update(taken)
    return made


def ledger(
    *windows: Window, keys: Sequence[KeyFacts] = (), now: datetime = NOW, **changes: Any
) -> Ledger:
    facts: dict[str, Any] = {
        "keys": {k.public_id: k for k in (keys or [key()])},
        "windows": windows,
        "clocks": {DEPLOYMENT: 0},
        "shares": {},
        "now": now,
        "peppers": PEPPERS,
    }
    return Ledger(**{**facts, **changes})


def one(verdicts: Sequence[Any]) -> Any:
    (verdict,) = verdicts
    return verdict


def refusal(verdict: Any) -> tuple[int, str]:
    assert isinstance(verdict, Refused), verdict
    return verdict.error.error_status, verdict.error.error_code
