"""What a measured installation serves: two fake models, tenants and their keys.

``python -m benchmarks.lib.seed --tenants N --json FILE``, on a migrated database.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any, Final
from uuid import UUID

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

import django

WHOLE: Final = "bench-whole"
STREAM: Final = "bench-stream"
LIMIT: Final = "bench-limit"

# A whole answer in one step measures everything but the engine; a steady pace measures streams.
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    WHOLE: {"token_ms": 0, "slots": 256, "tokens": 16},
    STREAM: {"token_ms": 5, "slots": 256, "tokens": 128},
    LIMIT: {},
}
_CONTEXT_LENGTH: Final = 8192
_NO_LIMIT: Final = 10**15


def seed(tenants: int) -> dict[str, Any]:
    """Makes the rows; returns ``{"keys": [...]}``."""
    from portal.core.actors import Context

    context = Context.system("benchmark")
    for name, options in OPTIONS.items():
        # The bare loop's jobs are its own: no gateway admits to it and no worker claims.
        deploy(context, name, options, enabled=name != LIMIT)
    return {"keys": [_tenant_key(context, f"bench-{number}") for number in range(tenants)]}


def deploy(
    context: Any,
    name: str,
    options: dict[str, Any],
    *,
    prices: tuple[int, int] = (140_000, 280_000),
    enabled: bool = True,
) -> UUID:
    """Makes a fake model and its deployment, both of that name; returns the model's id.

    Args:
        prices: of prompt and completion, in micro-units a million tokens.
    """
    from inference.artefacts import import_byte_level
    from inference.services import create_deployment, register_model_version, set_price
    from portal.core.env import env

    store = env().freehold_data_dir / "models"
    artefact = import_byte_level(store, context_length=_CONTEXT_LENGTH)
    path = store / artefact.id
    version = register_model_version(
        context=context, name=name, label="1", manifest=artefact, path=path
    )
    set_price(
        context=context,
        version_id=version.id,
        prompt_micros_per_million=prices[0],
        completion_micros_per_million=prices[1],
    )
    create_deployment(
        context=context,
        name=name,
        version_id=version.id,
        engine="fake",
        options=options,
        default_max_tokens=256,
        enabled=enabled,
    )
    return version.model_id


def tenant_with_key(context: Any, slug: str) -> tuple[Any, Any]:
    """Makes a tenant and a key of its owner's; returns the owner's context and the created key."""
    from portal.core.actors import Actor, ActorType, Context, TenantRole
    from tenants.services import create_api_key, create_tenant

    made = create_tenant(
        context=context, name=slug, slug=slug, owner_email=f"owner@{slug}.example.test"
    )
    owner = Context(
        actor=Actor(ActorType.USER, made.owner.id, made.owner.email),
        tenant_id=made.tenant.id,
        user_id=made.owner.id,
        tenant_role=TenantRole.OWNER,
    )
    return owner, create_api_key(context=owner, name="bench", scopes=["inference"])


def _tenant_key(context: Any, slug: str) -> str:
    from tenants.services import set_quota

    owner, key = tenant_with_key(context, slug)
    # A limit that is never reached still has to be decided on.
    set_quota(
        context=context, tenant_id=owner.tenant_id, tokens_minute=_NO_LIMIT, tokens_day=_NO_LIMIT
    )
    token: str = key.token
    return token


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    django.setup()
    arguments.json.write_text(json.dumps(seed(arguments.tenants)))


if __name__ == "__main__":
    main()
