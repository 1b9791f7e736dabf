"""Migration operations for isolation: policies, grants and composite foreign keys.

Each is reversible and names its roles: a policy without a role would bind roles that were
never thought of.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from portal.core.database_roles import database_roles

OWN_TENANT = "tenant_id = (SELECT current_tenant())"


class _SQLOperation(Operation):
    """An operation that is two lists of statements."""

    reversible = True
    reduces_to_sql = True
    atomic = True

    def forwards(self) -> list[str]:
        raise NotImplementedError

    def backwards(self) -> list[str]:
        raise NotImplementedError

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        return None

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        for statement in self.forwards():
            schema_editor.execute(statement, params=None)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        for statement in self.backwards():
            schema_editor.execute(statement, params=None)


class RoleSQL(_SQLOperation):
    """Statements in which ``{app}``, ``{gateway}``, ... stand for this installation's roles."""

    def __init__(self, forwards: str | Sequence[str], backwards: str | Sequence[str]) -> None:
        self._forwards = [forwards] if isinstance(forwards, str) else list(forwards)
        self._backwards = [backwards] if isinstance(backwards, str) else list(backwards)

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return (type(self).__qualname__, [self._forwards, self._backwards], {})

    def forwards(self) -> list[str]:
        return [_with_roles(s) for s in self._forwards]

    def backwards(self) -> list[str]:
        return [_with_roles(s) for s in self._backwards]

    def describe(self) -> str:
        return f"SQL with roles: {self._forwards[0][:60] if self._forwards else ''}"


def _with_roles(statement: str) -> str:
    roles = database_roles()
    for name in roles.__dataclass_fields__:
        statement = statement.replace("{" + name + "}", f'"{getattr(roles, name)}"')
    return statement


class Grant(_SQLOperation):
    """Gives each named role its privileges on a table; nobody else has any.

    Args:
        table: table name.
        grants: role attribute of ``DatabaseRoles`` -> privileges, such as ``"SELECT, INSERT"``.
    """

    def __init__(self, table: str, grants: Mapping[str, str]) -> None:
        self.table = table
        self.grants = dict(grants)

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return (type(self).__qualname__, [self.table, self.grants], {})

    def forwards(self) -> list[str]:
        roles = database_roles()
        return [
            f'GRANT {privileges} ON "{self.table}" TO "{getattr(roles, role)}"'
            for role, privileges in self.grants.items()
        ]

    def backwards(self) -> list[str]:
        roles = database_roles()
        return [
            f'REVOKE ALL ON "{self.table}" FROM "{getattr(roles, role)}"' for role in self.grants
        ]

    def describe(self) -> str:
        return f"Grant on {self.table}"


class EnableTenantRLS(_SQLOperation):
    """Row-level security that raises, forced on the owner too, with the grants beside it.

    ``app`` is bound to its own tenant, on reading and on writing; ``platform`` and, where it has
    a grant, ``gateway`` cross tenants.

    Args:
        table: table name.
        app: privileges of ``portal_app``; also of ``portal_platform`` unless ``platform`` is given.
        gateway: privileges of ``portal_gateway``, empty for none.
        platform: privileges of ``portal_platform``.
        using: the condition of the app's policy.
    """

    def __init__(
        self,
        table: str,
        *,
        app: str = "SELECT, INSERT, UPDATE, DELETE",
        gateway: str = "",
        platform: str | None = None,
        using: str = OWN_TENANT,
    ) -> None:
        self.table = table
        self.app = app
        self.gateway = gateway
        self.platform = platform
        self.using = using

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        kwargs = {
            "app": self.app,
            "gateway": self.gateway,
            "platform": self.platform,
            "using": self.using,
        }
        return (type(self).__qualname__, [self.table], kwargs)

    def _grants(self) -> dict[str, str]:
        platform = self.app if self.platform is None else self.platform
        grants = {"app": self.app, "platform": platform, "gateway": self.gateway}
        return {role: privileges for role, privileges in grants.items() if privileges}

    def forwards(self) -> list[str]:
        roles = database_roles()
        crossing = [role for role in ("platform", "gateway") if role in self._grants()]
        return [
            f'ALTER TABLE "{self.table}" ENABLE ROW LEVEL SECURITY',
            f'ALTER TABLE "{self.table}" FORCE ROW LEVEL SECURITY',
            self._policy("own_tenant", roles.app, self.using),
            *(self._policy(f"{r}_all", getattr(roles, r), "true") for r in crossing),
            *Grant(self.table, self._grants()).forwards(),
        ]

    def _policy(self, name: str, role: str, condition: str) -> str:
        return (
            f'CREATE POLICY {name} ON "{self.table}" TO "{role}" '
            f"USING ({condition}) WITH CHECK ({condition})"
        )

    def backwards(self) -> list[str]:
        names = [
            "own_tenant",
            *(f"{r}_all" for r in ("platform", "gateway") if r in self._grants()),
        ]
        return [
            *Grant(self.table, self._grants()).backwards(),
            *(f'DROP POLICY {name} ON "{self.table}"' for name in names),
            f'ALTER TABLE "{self.table}" NO FORCE ROW LEVEL SECURITY',
            f'ALTER TABLE "{self.table}" DISABLE ROW LEVEL SECURITY',
        ]

    def describe(self) -> str:
        return f"Tenant row-level security on {self.table}"


class CompositeForeignKey(_SQLOperation):
    """A foreign key over ``(tenant_id, column)``, so that a row can't point into another tenant.

    Foreign keys bypass row-level security; Django has no composite ones, so its field carries
    ``db_constraint=False`` and this operation the constraint.
    """

    def __init__(
        self,
        table: str,
        column: str,
        *,
        to: str,
        to_column: str = "id",
        on_delete: str = "NO ACTION",
    ) -> None:
        self.table = table
        self.column = column
        self.to = to
        self.to_column = to_column
        self.on_delete = on_delete

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        kwargs = {"to": self.to, "to_column": self.to_column, "on_delete": self.on_delete}
        return (type(self).__qualname__, [self.table, self.column], kwargs)

    @property
    def _name(self) -> str:
        return f"{self.table}_{self.column}_tenant_fk"

    def forwards(self) -> list[str]:
        constraint = (
            f'FOREIGN KEY (tenant_id, "{self.column}") '
            f'REFERENCES "{self.to}" (tenant_id, "{self.to_column}") ON DELETE {self.on_delete}'
        )
        return [f'ALTER TABLE "{self.table}" ADD CONSTRAINT "{self._name}" {constraint}']

    def backwards(self) -> list[str]:
        return [f'ALTER TABLE "{self.table}" DROP CONSTRAINT "{self._name}"']

    def describe(self) -> str:
        return f"Composite foreign key {self.table}.{self.column} -> {self.to}"
