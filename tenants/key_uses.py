"""The last use of keys, as both planes write it: one statement for many, never backwards."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

WRITE_EVERY_SECONDS: Final = 15.0
"""How far what is shown may lag behind."""

# In one order, so that two processes never wait for each other in a circle.
WRITE_USES: Final = """
INSERT INTO tenants_apikeyuse AS u (tenant_id, api_key_id, generation, last_used_at)
SELECT * FROM unnest(%(tenants)s::uuid[], %(keys)s::uuid[], %(generations)s::integer[],
                     %(times)s::timestamptz[]) AS x(tenant_id, api_key_id, generation, used_at)
 ORDER BY api_key_id, generation
    ON CONFLICT (tenant_id, api_key_id, generation) DO UPDATE
   SET last_used_at = greatest(u.last_used_at, EXCLUDED.last_used_at)
"""


class KeyUse(NamedTuple):
    """One generation of one key."""

    tenant_id: UUID
    api_key_id: UUID
    generation: int


def parameters(uses: Mapping[KeyUse, datetime]) -> dict[str, Any]:
    """The parameters of ``WRITE_USES``: when each was used last."""
    return {
        "tenants": [use.tenant_id for use in uses],
        "keys": [use.api_key_id for use in uses],
        "generations": [use.generation for use in uses],
        "times": list(uses.values()),
    }
