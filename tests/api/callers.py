"""A caller of the management API: a browser session, an API key, or nobody."""

import json
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from django.test import Client

from tenants.identity.sessions import ACTIVE_TENANT
from tenants.models import User

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse

Reply: TypeAlias = "_MonkeyPatchedWSGIResponse"
"""What the test client answers."""


class Caller:
    """Sends JSON and reads JSON; a defect of the product is an answer 500, as on a real server."""

    def __init__(self, client: Client | None = None, **headers: str) -> None:
        self.client = client or Client(raise_request_exception=False)
        self.headers = headers

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        data = b"" if body is None else body
        return self.client.generic(
            method,
            f"/api/v1/{path}",
            data if isinstance(data, bytes) else json.dumps(data),
            content_type="application/json",
            headers={**self.headers, **headers},
        )

    def get(self, path: str, **headers: str) -> Reply:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        return self.call("POST", path, body, **headers)


def session_caller(user: User, tenant_id: UUID | None = None) -> Caller:
    """A browser in which ``user`` is logged in and has, maybe, chosen a tenant."""
    client = Client(raise_request_exception=False)
    client.force_login(user)
    if tenant_id is not None:
        session = client.session
        session[ACTIVE_TENANT] = str(tenant_id)
        session.save()
    return Caller(client)


def key_caller(token: str) -> Caller:
    return Caller(Authorization=f"Bearer {token}")
