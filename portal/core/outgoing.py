"""Calls to other machines: which addresses may be called, and a transport that calls no other.

A URL is checked when it is handed in, its addresses each time it is called: names can be pointed
elsewhere in between. The connection is made to the very address that was checked.
"""

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any, Final, Self

import httpx

from portal.core.http import Address, Network, parse_network

# They log whole URLs, whose path and query can be secrets.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

PUBLIC: Final = "public"
MOST_URL_CHARS: Final = 2000
MOST_ADDRESSES: Final = 3
"""How many of a name's addresses are tried, one after the other."""
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PORTS: Final = frozenset({80, 443, *range(1024, 65536)})
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")

# Whatever the operator lists: no receiver lives here, but clouds hand out credentials here.
_NEVER: Final[tuple[Network, ...]] = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("100.100.100.200/32"),
    IPv4Network("168.63.129.16/32"),
    IPv4Network("192.0.0.192/32"),
    IPv4Network("224.0.0.0/3"),
    IPv6Network("::/128"),
    IPv6Network("fe80::/10"),
    IPv6Network("fd00:ec2::/32"),
    IPv6Network("ff00::/8"),
)
# Global by their numbers: the first is site-local, the others carry somebody's IPv4 address.
_NOT_PUBLIC: Final = (
    IPv6Network("fec0::/10"),
    IPv6Network("::/96"),
    IPv6Network("::ffff:0:0:0/96"),
    IPv6Network("64:ff9b::/96"),
    IPv6Network("64:ff9b:1::/48"),
    IPv6Network("2001::/32"),
    IPv6Network("2002::/16"),
)


@dataclass(frozen=True, slots=True)
class Targets:
    """Which addresses may be called.

    Attributes:
        public: whether every public address may, over https.
        networks: further networks that may, over http too.
    """

    public: bool
    networks: tuple[Network, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``public, 10.0.0.0/8, ...``.

        Raises:
            ValueError: an entry is neither a network nor ``public``.
        """
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        networks = tuple(parse_network(entry) for entry in entries if entry != PUBLIC)
        return cls(PUBLIC in entries, networks)

    def allow(self, address: Address, scheme: str) -> bool:
        """Whether this address may be called by ``http`` or ``https``."""
        plain = _plain(address)
        if any(plain in network for network in _NEVER):
            return False
        if any(plain in network for network in self.networks):
            return True
        return self.public and scheme == "https" and _is_public(plain)

    def allowed(self, texts: Iterable[str], scheme: str) -> list[str]:
        """Those of a name's addresses that may be called, each once; empty if none may."""
        return [text for text in dict.fromkeys(texts) if self.allow(ip_address(text), scheme)]


def url_fault(text: str) -> str:
    """Why a text is no URL that can be called, in words; empty if it is one."""
    if not (text.isascii() and text.isprintable()) or " " in text:
        return "must be printable ASCII without blanks; encode the rest"
    if len(text) > MOST_URL_CHARS:
        return f"must have at most {MOST_URL_CHARS} characters"
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        return "is no URL"
    return next((words for fault, words in _RULES if fault(url)), "")


_RULES: Final[tuple[tuple[Callable[[httpx.URL], bool], str], ...]] = (
    (
        lambda url: url.scheme not in ("http", "https") or not url.host,
        "must begin with https:// or http:// and name a host",
    ),
    (lambda url: bool(url.userinfo), "must hold no user name and no password"),
    (lambda url: bool(url.fragment), "must have no fragment (#)"),
    (
        lambda url: not _HOST.fullmatch(raw_host(url)),
        "must name a host by letters, digits, dots and hyphens, or by an address",
    ),
    (
        lambda url: url.port is not None and url.port not in _PORTS,
        "must name port 80, 443, or one from 1024 to 65535",
    ),
)


def raw_host(url: httpx.URL) -> str:
    """The host in ASCII, as names are resolved and certificates checked."""
    return url.raw_host.decode("ascii")


def literal_address(url: httpx.URL) -> str | None:
    """The host if it is an address, and no name; other spellings of addresses are names here."""
    try:
        address = ip_address(url.host)
    except ValueError:
        return None
    return str(address)


def origin_of(url: httpx.URL) -> str:
    """Scheme, host and port: what may be shown of a URL, whose path and query can be secrets."""
    host = f"[{raw_host(url)}]" if ":" in url.host else raw_host(url)
    port = f":{url.port}" if url.port is not None else ""
    return f"{url.scheme}://{host}{port}"


def authorities(ca_file: Path | None) -> ssl.SSLContext:
    """Trust in public authorities, in this machine's own, and in those of a PEM file."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def is_tls_fault(fault: BaseException) -> bool:
    """Whether a failed call failed in its TLS: an untrusted certificate, or another name's."""
    cause: Any = fault
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


class AddressRefused(httpx.ConnectError):
    """None of a host's addresses may be called."""


class UnknownHost(httpx.ConnectError):
    """A host's name can't be resolved."""


class PinnedTransport(httpx.BaseTransport):
    """Calls a host at those of its addresses that are allowed, and at no other.

    Connections are kept and used again; nothing is taken from the environment, where a proxy
    would make the connection past the check.

    Args:
        targets: which addresses may be called.
        tls: whom to trust; the certificate must be the name's, whatever address is called.

    Raises:
        AddressRefused, UnknownHost: from a request, before anything is sent.
    """

    def __init__(self, targets: Targets, tls: ssl.SSLContext) -> None:
        self._targets = targets
        self._inner = httpx.HTTPTransport(verify=tls, trust_env=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        last: httpx.TransportError = _refused()
        try:
            for _ in _pinned(request, self._targets, _resolve(url)):
                try:
                    return self._inner.handle_request(request)
                except _NO_CONNECTION as fault:
                    last = fault
        finally:
            request.url = url
        raise last

    def close(self) -> None:
        self._inner.close()


class AsyncPinnedTransport(httpx.AsyncBaseTransport):
    """As ``PinnedTransport``, on an event loop."""

    def __init__(self, targets: Targets, tls: ssl.SSLContext) -> None:
        self._targets = targets
        # Whoever calls bounds what is on its way; a pool that is full would only look like a fault.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._inner = httpx.AsyncHTTPTransport(verify=tls, trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        last: httpx.TransportError = _refused()
        # A resolver that is slow holds up a thread, not the loop.
        addresses = await asyncio.to_thread(_resolve, url)
        try:
            for _ in _pinned(request, self._targets, addresses):
                try:
                    return await self._inner.handle_async_request(request)
                except _NO_CONNECTION as fault:
                    last = fault
        finally:
            request.url = url
        raise last

    async def aclose(self) -> None:
        await self._inner.aclose()


_NO_CONNECTION: Final = (httpx.ConnectError, httpx.ConnectTimeout)


def _refused() -> AddressRefused:
    return AddressRefused("No address of the host may be called.")


def _pinned(request: httpx.Request, targets: Targets, addresses: list[str]) -> Iterator[None]:
    """Points a request at each address of its host that may be called, one after the other."""
    url = request.url
    request.extensions = {**request.extensions, "sni_hostname": raw_host(url)}
    for address in targets.allowed(addresses, url.scheme)[:MOST_ADDRESSES]:
        request.url = url.copy_with(host=address)
        yield


def _resolve(url: httpx.URL) -> list[str]:
    literal = literal_address(url)
    if literal is not None:
        return [literal]
    port = url.port or DEFAULT_PORTS[url.scheme]
    try:
        found = socket.getaddrinfo(raw_host(url), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UnknownHost("The host's name can't be resolved.") from None
    return plain_addresses(found)


def plain_addresses(found: Iterable[tuple[Any, ...]]) -> list[str]:
    """The addresses of what ``getaddrinfo`` found.

    A zone ("%eth0") means something on one machine only, and is link-local anyhow.
    """
    return [str(entry[4][0]).partition("%")[0] for entry in found]


def _plain(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_public(address: Address) -> bool:
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_reserved and not address.is_multicast
