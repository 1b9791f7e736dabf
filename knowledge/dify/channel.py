"""HTTP to one instance of Dify: bounded, pinned to allowed addresses, its refusals typed."""

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, Final, Self

import httpx

from knowledge.dify import errors
from knowledge.dify.answers import (
    MOST_ANSWER_BYTES,
    Answer,
    check_head,
    refusal,
    unanswered,
    version_of,
)
from portal.core.env import env
from portal.core.outgoing import PinnedTransport, Targets, authorities

Json = Mapping[str, Any]

CALL_SECONDS: Final = 60.0
"""How long a whole call may take; an upload of 15 MB fits."""
_SILENCE_SECONDS: Final = 20.0
CONNECT_SECONDS: Final = 5.0
# Compressed answers can't be bounded before they are unpacked.
HEADERS: Final[Mapping[str, str]] = {"user-agent": "Freehold/1", "accept-encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An instance of Dify, a workspace in it, and the keys that open it.

    Attributes:
        base_url: scheme, host and any path in front of ``/console/api`` and ``/v1``.
        workspace_id: the workspace that the console key acts in.
        console_key: Dify's ``ADMIN_API_KEY``; it opens every workspace.
        dataset_key: of the service API; it opens the workspace's knowledge.
    """

    base_url: str
    workspace_id: str
    console_key: str = field(repr=False)
    dataset_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a multipart call."""

    filename: str
    content: bytes = field(repr=False)
    media_type: str = "application/octet-stream"


class Channel:
    """A connection to one Dify; not shared among threads.

    Args:
        base_url: as in ``Endpoint``.
        call_seconds: how long a whole call may take.

    Attributes:
        version: ``X-Version`` of the newest answer; empty before the first.
    """

    def __init__(
        self, base_url: str, transport: httpx.BaseTransport, *, call_seconds: float = CALL_SECONDS
    ) -> None:
        self.version = ""
        self._base = base_url.rstrip("/")
        self._call_seconds = call_seconds
        self._client = httpx.Client(
            transport=transport,
            timeout=httpx.Timeout(
                min(_SILENCE_SECONDS, call_seconds), connect=min(CONNECT_SECONDS, call_seconds)
            ),
            trust_env=False,
            follow_redirects=False,
            headers=HEADERS,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Json | None = None,
        json: Json | None = None,
        fields: Mapping[str, str] | None = None,
        upload: Upload | None = None,
        accept: frozenset[int] = frozenset(),
    ) -> Answer:
        """One call, without a retry.

        Args:
            path: behind the base, with a leading slash.
            json: the body, or else ``fields`` and ``upload`` as multipart.
            accept: statuses of a refusal that are handed back all the same.

        Raises:
            DifyFault: of the kind that says why.
        """
        files = None
        if upload is not None:
            files = {"file": (upload.filename, upload.content, upload.media_type)}
        request = self._client.build_request(
            method,
            self._base + path,
            params=params,
            json=json,
            data=fields,
            files=files,
            headers=dict(headers),
        )
        deadline = time.monotonic() + self._call_seconds
        try:
            response = self._client.send(request, stream=True)
            try:
                body = _bounded(response, deadline)
            finally:
                response.close()
        except httpx.HTTPError as fault:
            raise unanswered(fault) from None
        self.version = version_of(response)
        if check_head(response, accept):
            return Answer(response.status_code, body)
        raise refusal(response, body)


def open_channel(base_url: str, **options: Any) -> Channel:
    """A channel to an instance at an address that this installation's operator allows."""
    return Channel(base_url, PinnedTransport(dify_targets(), dify_tls()), **options)


@cache
def dify_targets() -> Targets:
    """Where instances of Dify may stand."""
    return Targets.parse(env().dify_networks)


@cache
def dify_tls() -> ssl.SSLContext:
    """Whom calls to instances of Dify trust."""
    return authorities(env().dify_ca_file)


def _bounded(response: httpx.Response, deadline: float) -> bytes:
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > MOST_ANSWER_BYTES:
            raise errors.TooLarge(remote_status=response.status_code)
        if time.monotonic() > deadline:
            raise errors.TimedOut(remote_status=response.status_code)
    return bytes(body)
