"""Where webhooks may go: the rules for callback URLs and for the addresses behind them.

A URL is checked when it is handed in, its addresses each time it is called: names can be pointed
elsewhere in between. The connection is made to the very address that was checked.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Self

import httpx

from portal.core.env import env
from portal.core.errors import Invalid, PortalError
from portal.core.http import Address, Network, parse_network

PUBLIC: Final = "public"
MOST_URL_CHARS: Final = 2000
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


class TargetRefused(PortalError):
    """Webhooks may not go there."""

    code = "webhook_target_refused"
    status = 400


@dataclass(frozen=True, slots=True)
class Targets:
    """Which addresses may receive webhooks.

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
        """Whether a webhook may be sent to this address by ``http`` or ``https``."""
        plain = _plain(address)
        if any(plain in network for network in _NEVER):
            return False
        if any(plain in network for network in self.networks):
            return True
        return self.public and scheme == "https" and _is_public(plain)

    def allowed(self, texts: Iterable[str], scheme: str, param: str = "url") -> list[str]:
        """Those of a name's addresses that may be called; ``param`` is what a refusal names.

        Raises:
            TargetRefused: none of them may.
        """
        found = [text for text in dict.fromkeys(texts) if self.allow(ip_address(text), scheme)]
        if not found:
            raise TargetRefused(
                "The receiver's address is not one that webhooks may go to; the operator lists "
                "networks in WEBHOOK_NETWORKS, and public addresses need https.",
                param=param,
            )
        return found


@cache
def targets() -> Targets:
    """What this installation's operator allows."""
    return Targets.parse(env().webhook_networks)


def clean_url(text: str, allowed: Targets, param: str = "url") -> httpx.URL:
    """A callback URL as it will be called.

    A host that is written as an address is checked here already; a name is resolved when it is
    called.

    Args:
        param: the input that a refusal names.

    Raises:
        Invalid: it is no URL of a webhook.
        TargetRefused: its address may not receive webhooks.
    """
    wrong = _fault_of(text)
    if wrong:
        raise Invalid(f"The callback URL {wrong}.", param=param)
    url = httpx.URL(text)
    literal = literal_address(url)
    if literal is not None:
        allowed.allowed([literal], url.scheme, param)
    return url


def _fault_of(text: str) -> str:
    """Why a text is no callback URL, in words; empty if it is one."""
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


def _plain(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_public(address: Address) -> bool:
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_reserved and not address.is_multicast
