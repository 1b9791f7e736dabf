"""Audit rows by the batch, for the data plane: SQL that stands beside what it tells of."""

from collections.abc import Mapping


def insert_events(rows: str, columns: Mapping[str, str]) -> str:
    """An INSERT that appends one event to the trail for each of ``rows``.

    Args:
        rows: what stands after FROM.
        columns: column of ``audit_event`` -> SQL expression over ``rows``; the columns that are
            not named have their defaults.
    """
    return _insert("audit_event", rows, columns)


def insert_bodies(rows: str, columns: Mapping[str, str]) -> str:
    """An INSERT that appends one body for each of ``rows``; as ``insert_events``."""
    return _insert("audit_body", rows, columns)


def _insert(table: str, rows: str, columns: Mapping[str, str]) -> str:
    names, expressions = ", ".join(columns), ", ".join(columns.values())
    return f"INSERT INTO {table} ({names}) SELECT {expressions} FROM {rows}"
