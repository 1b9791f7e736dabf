"""What comes back from Dify, read: the fault of a call that failed, typed."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

import httpx
import msgspec

from knowledge.dify import errors
from portal.core.outgoing import AddressRefused, UnknownHost, is_tls_fault

T = TypeVar("T")

VERSION_HEADER: Final = "x-version"
MOST_ANSWER_BYTES: Final = 16 * 1024 * 1024
MOST_RETRY_SECONDS: Final = 3600.0
_REDIRECTS: Final = range(300, 400)


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


def version_of(response: httpx.Response) -> str:
    """Dify's version, or nothing where what answers tells none."""
    return str(response.headers.get(VERSION_HEADER, ""))[:40]


def check_head(response: httpx.Response, accept: frozenset[int] = frozenset()) -> bool:
    """Whether an answer is none of a refusal, by its head alone.

    Args:
        accept: statuses of a refusal that count as none.

    Raises:
        Redirected, NotDify: it is no answer of a Dify.
    """
    if response.status_code in _REDIRECTS:
        raise errors.Redirected(remote_status=response.status_code)
    if not (response.is_success or response.status_code in accept):
        return False
    if not version_of(response):
        raise errors.NotDify(remote_status=response.status_code)
    return True


def unanswered(fault: httpx.HTTPError) -> errors.DifyFault:
    """The fault of a call that got no answer."""
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
    "not_chat_app": errors.WrongMode,
    "not_workflow_app": errors.WrongMode,
    "provider_not_initialize": errors.ModelUnavailable,
    "provider_quota_exceeded": errors.ModelUnavailable,
    "model_currently_not_support": errors.ModelUnavailable,
    "completion_request_error": errors.ModelFailed,
}
_BY_STATUS: Final[Mapping[int, type[errors.DifyFault]]] = {
    401: errors.KeyRefused,
    403: errors.Denied,
    404: errors.Missing,
    405: errors.Unsupported,
    429: errors.Busy,
}


def refusal(response: httpx.Response, body: bytes) -> errors.DifyFault:
    """The fault of an answer that is no success, by its code and else by its status."""
    status = response.status_code
    code = _code(body)
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if kind is None:
        kind = errors.Failed if status >= 500 else errors.Refused
    if kind is errors.Missing and not code:
        kind = errors.NoRoute
    # A proxy in front speaks for a Dify that is down or busy, without a version.
    if VERSION_HEADER not in response.headers and kind is not errors.Busy:
        kind = errors.Down if kind is errors.Failed else errors.NotDify
    return kind(remote_status=status, remote_code=code, retry_after=_retry_after(response))


def fault_of_code(code: str) -> errors.DifyFault:
    """The fault that an event of a stream tells."""
    return _BY_CODE.get(code, errors.Failed)(remote_code=code[:80])


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
