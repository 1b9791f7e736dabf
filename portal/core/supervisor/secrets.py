"""The installation's secrets: made once, kept as files that only their owner reads."""

import base64
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from portal.core.supervisor.faults import Fault, explain
from portal.core.supervisor.layout import Layout, write_private

# Login roles of the database, by the name of their URL.
LOGIN_ROLES = {
    "database_url_app": "portal_app",
    "database_url_gateway": "portal_gateway",
    "database_url_sealer": "portal_sealer",
    "database_url_owner": "portal_owner",
}
SUPERUSER_FILE = "postgres_superuser"


def _password() -> str:
    return secrets.token_urlsafe(32)


def _numbered_key() -> str:
    return "1:" + base64.b64encode(secrets.token_bytes(32)).decode()


_MADE_ONCE: dict[str, Callable[[], str]] = {
    SUPERUSER_FILE: _password,
    "secret_key": lambda: secrets.token_urlsafe(64),
    "encryption_keys": _numbered_key,
    "api_key_peppers": _numbered_key,
}


def read(path: Path) -> str | None:
    """A secret's value, or None if its file is missing or empty."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise explain(error, path) from error


def ensure(layout: Layout) -> None:
    """Make the secrets that are missing, unless data already depend on them.

    A secret given by the environment is the operator's and no file is made of it.

    Raises:
        Fault: a secret is missing though the database that needs it exists.
    """
    for name, make in _MADE_ONCE.items():
        path = layout.secrets / name
        if name.upper() in os.environ or read(path) is not None:
            continue
        if layout.postgres.exists():
            raise Fault(
                f"{path} is missing though the database in {layout.postgres} depends on it: put "
                "it back from your copy of the secrets folder, or begin anew with another "
                "--data-dir."
            )
        write_private(path, make())


def superuser_password(folder: Path) -> str:
    """The superuser's password, made if there is none yet."""
    path = folder / SUPERUSER_FILE
    found = read(path)
    if found is None:
        found = _password()
        write_private(path, found)
    return found


def write_urls(
    layout: Layout, *, database: Callable[[str, str], str] | None, broker: str | None
) -> None:
    """Write the URLs by which the product reaches the embedded servers.

    Passwords stay what they were; addresses follow the data folder, which may have moved.

    Args:
        database: makes the URL of a role and its password; None where the database is not ours.
        broker: URL of the embedded broker; None where it is not ours.
    """
    if database is not None:
        for name, role in LOGIN_ROLES.items():
            path = layout.secrets / name
            before = read(path)
            password = urlsplit(before).password if before else None
            write_private(path, database(role, password or _password()))
    if broker is not None:
        write_private(layout.secrets / "redis_url", broker)
