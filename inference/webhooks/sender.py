"""One signed HTTP call to a receiver, bounded in time and in what is read."""

import asyncio
import socket
import ssl
import time
from dataclasses import dataclass
from functools import cache
from typing import Final

import httpx

from inference.webhooks.targets import TargetRefused, allowed_addresses
from portal.core.env import env
from portal.core.outgoing import (
    DEFAULT_PORTS,
    MOST_ADDRESSES,
    Targets,
    authorities,
    is_tls_fault,
    literal_address,
    plain_addresses,
    raw_host,
)

TOTAL_SECONDS: Final = 15.0
_CONNECT_SECONDS: Final = 5.0
_TIMEOUT: Final = httpx.Timeout(10.0, connect=_CONNECT_SECONDS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt.

    Attributes:
        status: the receiver's HTTP status; None if there was no answer.
        error: why it does not count as delivered, in words; empty if it does.
        milliseconds: how long it took.
    """

    status: int | None
    error: str
    milliseconds: int

    @property
    def delivered(self) -> bool:
        return not self.error

    @property
    def gone(self) -> bool:
        """Whether the receiver asks to be called no more."""
        return self.status == httpx.codes.GONE


async def send(url: httpx.URL, headers: dict[str, str], body: bytes, allowed: Targets) -> Outcome:
    """Posts the body to one of the URL's allowed addresses; raises nothing that the receiver does.

    Redirects are not followed, and the answer's body is not read.
    """
    began = time.monotonic()
    status: int | None = None
    error = ""
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            status = await _post(url, headers, body, allowed)
    except TimeoutError:
        error = f"There was no answer within {TOTAL_SECONDS:g} seconds."
    except (TargetRefused, _Unreachable) as fault:
        error = str(fault)
    if status is not None:
        error = _fault_of(status)
    return Outcome(status, error, round((time.monotonic() - began) * 1000))


class _Unreachable(Exception):
    """No answer came; the message says why, without anything that the receiver wrote."""


async def _post(url: httpx.URL, headers: dict[str, str], body: bytes, allowed: Targets) -> int:
    host = raw_host(url)
    addresses = allowed_addresses(allowed, await _resolve(url, host), url.scheme)
    sent = {
        "host": url.netloc.decode("ascii"),
        "content-type": "application/json",
        "user-agent": "Freehold-Webhooks/1",
        **headers,
    }
    # Nothing of the environment: a proxy would make the connection past the check.
    async with httpx.AsyncClient(
        verify=_tls(), trust_env=False, follow_redirects=False, timeout=_TIMEOUT
    ) as client:
        for address in addresses[:MOST_ADDRESSES]:
            request = client.build_request(
                "POST",
                url.copy_with(host=address),
                headers=sent,
                content=body,
                # The certificate must be the name's, whatever address it was called by.
                extensions={"sni_hostname": host},
            )
            try:
                answer = await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as fault:
                last = fault
                continue
            except httpx.HTTPError as fault:
                raise _Unreachable(_words(fault)) from None
            await answer.aclose()
            return answer.status_code
        raise _Unreachable(_words(last))


async def _resolve(url: httpx.URL, host: str) -> list[str]:
    literal = literal_address(url)
    if literal is not None:
        return [literal]
    port = url.port or DEFAULT_PORTS[url.scheme]
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise _Unreachable("The receiver's name can't be resolved.") from None
    return plain_addresses(found)


@cache
def _tls() -> ssl.SSLContext:
    return authorities(env().webhook_ca_file)


def _fault_of(status: int) -> str:
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return f"The receiver answered {status}; redirects are not followed."
    return f"The receiver answered {status}."


_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (httpx.ConnectTimeout, "The receiver did not take the connection in time."),
    (httpx.TimeoutException, "The receiver did not answer in time."),
    (httpx.ConnectError, "The receiver can't be reached."),
    (httpx.NetworkError, "The connection broke off."),
    (httpx.ProtocolError, "The receiver's answer is not HTTP."),
)


def _words(fault: httpx.HTTPError) -> str:
    if is_tls_fault(fault):
        return "The receiver's certificate is not trusted, or not its name's."
    return next((words for kind, words in _WORDS if isinstance(fault, kind)), "The call failed.")
