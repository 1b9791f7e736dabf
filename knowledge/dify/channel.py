"""HTTP to one instance of Dify: bounded, pinned to allowed addresses, its refusals typed."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cache
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx
import msgspec

from knowledge.dify import errors
from portal.core.env import env
from portal.core.outgoing import (
    AddressRefused,
    PinnedTransport,
    Targets,
    UnknownHost,
    authorities,
    is_tls_fault,
)

T = TypeVar("T")
Json = Mapping[str, Any]

VERSION_HEADER: Final = "x-version"
MOST_ANSWER_BYTES: Final = 16 * 1024 * 1024
MOST_RETRY_SECONDS: Final = 3600.0
CALL_SECONDS: Final = 60.0
"""How long a whole call may take; an upload of 15 MB fits."""
_SILENCE_SECONDS: Final = 20.0
_CONNECT_SECONDS: Final = 5.0
_REDIRECTS: Final = range(300, 400)


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


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of a call that Dify did not refuse."""

    status: int
    body: bytes = field(repr=False)

    def read(self, shape: type[T]) -> T:
        """The body as ``shape``.

        Raises:
            UnexpectedAnswer: it is not.
        """
        try:
            return msgspec.json.decode(self.body, type=shape)
        except msgspec.DecodeError:
            raise errors.UnexpectedAnswer(remote_status=self.status) from None


class _Problem(msgspec.Struct):
    """Dify's error bodies; some limits say ``custom`` where others say ``code``."""

    code: str = ""
    custom: str = ""


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
                min(_SILENCE_SECONDS, call_seconds), connect=min(_CONNECT_SECONDS, call_seconds)
            ),
            trust_env=False,
            follow_redirects=False,
            # Compressed answers can't be bounded before they are unpacked.
            headers={"user-agent": "Freehold/1", "accept-encoding": "identity"},
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
            raise _unanswered(fault) from None
        self.version = response.headers.get(VERSION_HEADER, "")[:40]
        if response.status_code in _REDIRECTS:
            raise errors.Redirected(remote_status=response.status_code)
        if response.is_success or response.status_code in accept:
            if not self.version:
                raise errors.NotDify(remote_status=response.status_code)
            return Answer(response.status_code, body)
        raise _refusal(response, body)


def open_channel(base_url: str, **options: Any) -> Channel:
    """A channel to an instance at an address that this installation's operator allows."""
    return Channel(base_url, PinnedTransport(dify_targets(), _tls()), **options)


@cache
def dify_targets() -> Targets:
    """Where instances of Dify may stand."""
    return Targets.parse(env().dify_networks)


@cache
def _tls() -> Any:
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


def _unanswered(fault: httpx.HTTPError) -> errors.DifyFault:
    if is_tls_fault(fault):
        return errors.CertificateRefused()
    for kind, error in _UNANSWERED:
        if isinstance(fault, kind):
            return error()
    return errors.Unreachable()


_UNANSWERED: Final[tuple[tuple[type[Exception], type[errors.DifyFault]], ...]] = (
    (AddressRefused, errors.AddressNotAllowed),
    (UnknownHost, errors.HostUnknown),
    (httpx.ConnectTimeout, errors.Unreachable),
    (httpx.TimeoutException, errors.TimedOut),
    (httpx.RemoteProtocolError, errors.BrokenOff),
)

_BY_CODE: Final[Mapping[str, type[errors.DifyFault]]] = {
    "dataset_name_duplicate": errors.NameTaken,
    "invalid_action": errors.StillProcessing,
}
_BY_STATUS: Final[Mapping[int, type[errors.DifyFault]]] = {
    401: errors.KeyRefused,
    403: errors.Denied,
    404: errors.Missing,
    405: errors.Unsupported,
    429: errors.Busy,
}


def _refusal(response: httpx.Response, body: bytes) -> errors.DifyFault:
    """The fault of an answer that is no success, by its code and else by its status."""
    status = response.status_code
    code = _code(body)
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if kind is None:
        kind = errors.Failed if status >= 500 else errors.Refused
    # A proxy in front speaks for a Dify that is down or busy, without a version.
    if VERSION_HEADER not in response.headers and kind not in (errors.Failed, errors.Busy):
        kind = errors.NotDify
    return kind(remote_status=status, remote_code=code, retry_after=_retry_after(response))


def _code(body: bytes) -> str:
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except msgspec.DecodeError:
        return ""
    return (problem.code or problem.custom)[:80]


def _retry_after(response: httpx.Response) -> float | None:
    """``Retry-After`` in seconds, whether it is a number or a date; None without one."""
    text = response.headers.get("retry-after", "").strip()
    try:
        seconds = float(text) if text.isdigit() else _until(text)
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), MOST_RETRY_SECONDS)


def _until(text: str) -> float:
    return parsedate_to_datetime(text).timestamp() - time.time()
