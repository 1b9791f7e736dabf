"""The migration operation that puts a table under the audit trail."""

from collections.abc import Sequence
from typing import Any

from portal.core.tenancy.operations import RoleSQL


class GovernTable(RoleSQL):
    """Records every row change of a table in the audit trail, in the same transaction.

    Args:
        table: table name.
        label: what events call the object, such as ``"tenants.apikey"``.
        name: the column whose value labels the object, or ``""``.
        redact: columns whose values never enter the trail.
        tenant: the column that holds the tenant; ``""`` for platform tables.
        ignore: columns whose change alone is no event, such as ``last_login``.
    """

    def __init__(
        self,
        table: str,
        *,
        label: str,
        name: str = "",
        redact: Sequence[str] = (),
        tenant: str = "tenant_id",
        ignore: Sequence[str] = (),
    ) -> None:
        self._kwargs: dict[str, Any] = {
            "label": label,
            "name": name,
            "redact": list(redact),
            "tenant": tenant,
            "ignore": list(ignore),
        }
        self._table = table
        arguments = ", ".join(
            f"'{part}'" for part in (label, tenant, name, ",".join(redact), ",".join(ignore))
        )
        super().__init__(
            f'CREATE TRIGGER audit_row_change AFTER INSERT OR UPDATE OR DELETE ON "{table}" '
            f"FOR EACH ROW EXECUTE FUNCTION audit_row_change({arguments})",
            f'DROP TRIGGER audit_row_change ON "{table}"',
        )

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return (type(self).__qualname__, [self._table], self._kwargs)

    def describe(self) -> str:
        return f"Audit row changes of {self._table}"
