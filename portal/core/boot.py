"""What every serving process makes sure of before it serves: that its database role is bound.

A superuser, an owner or a role with BYPASSRLS passes by every policy; a role that inherits an
entered role holds its policies at once. None of these may serve.
"""

from typing import Any

import psycopg

_ROLE = """
SELECT rolname, rolsuper, rolbypassrls,
       EXISTS (SELECT 1 FROM pg_class c WHERE c.relowner = r.oid AND c.relkind IN ('r', 'p')),
       ARRAY(SELECT i.rolname FROM pg_roles i
              WHERE i.oid <> r.oid AND pg_has_role(r.oid, i.oid, 'USAGE'))
  FROM pg_roles r WHERE rolname = current_user
"""

_OPEN_TABLES = """
SELECT c.relname FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
 WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
   AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
"""


def role_faults(connection: psycopg.Connection[Any]) -> list[str]:
    """Why this connection's role may not serve; empty if it may."""
    row = connection.execute(_ROLE).fetchone()
    assert row is not None, "the current role exists"
    name, superuser, bypass, owner, inherited = row
    words = {"a superuser": superuser, "exempt from policies": bypass, "a table owner": owner}
    faults = [
        f"The database role {name} is {word}: row-level security does not bind it. "
        "Serve with the roles that `manage.py roles` makes."
        for word, bad in words.items()
        if bad
    ]
    if inherited and not superuser:
        faults.append(
            f"The database role {name} inherits {', '.join(inherited)}, so their policies apply "
            "at once. `manage.py roles` grants them WITH INHERIT FALSE."
        )
    faults += [
        f"{table} holds tenants' rows without forced row-level security: add EnableTenantRLS."
        for (table,) in connection.execute(_OPEN_TABLES).fetchall()
    ]
    return faults


def refuse_unbound_role(url: str) -> None:
    """Ends the process if the login of ``url`` may not serve.

    Raises:
        SystemExit: with every fault, a line each.
    """
    with psycopg.connect(url, connect_timeout=10) as connection:
        faults = role_faults(connection)
    if faults:
        raise SystemExit("\n".join(faults))
