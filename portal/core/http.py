"""Facts about an HTTP call that both planes need."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# More hops than any real chain of proxies has; what lies beyond them is not looked at.
_MAX_HOPS: Final = 32
_MAX_ADDRESS_CHARS: Final = 64
# The prefix of ::ffff:0:0/96, under which IPv6 writes IPv4 addresses.
_MAPPED_BITS: Final = 96


def trusted_networks(text: str) -> tuple[Network, ...]:
    """The networks in a comma-separated list, such as ``10.0.0.0/8, ::1``.

    Raises:
        ValueError: naming the entry that is not a network.
    """
    return tuple(ip_network(entry.strip()) for entry in text.split(",") if entry.strip())


def parse_network(text: str) -> Network:
    """One network in CIDR notation, or one address as a network of its own.

    A network of IPv4 addresses that are written in IPv6 is the IPv4 network: callers' addresses
    are read that way, too.

    Raises:
        ValueError: it is no network, or its address has bits beyond the prefix.
    """
    network = ip_network(text)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def address_within(address: str | None, networks: tuple[str, ...]) -> bool:
    """Whether an address, as ``client_address`` gives it, lies in one of the networks.

    An address that is not known lies in none.
    """
    known = _address(address)
    return known is not None and _within(known, _networks(networks))


@lru_cache(maxsize=4096)
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(parse_network(text) for text in texts)


def client_address(
    peer: str | None, forwarded_for: str | None, trusted: Sequence[Network]
) -> str | None:
    """The address a call came from, as an IPv4 or IPv6 address; None if it can't be known.

    ``X-Forwarded-For`` is believed only as far as trusted proxies wrote it: read from the right,
    the first address outside ``trusted`` is the client's. An entry that is no address ends the
    reading, and the proxy that passed it on stands for the client. Ports are ignored.

    Args:
        peer: the other end of the connection.
        forwarded_for: the header's value, several headers joined by commas.
        trusted: the proxies' networks.
    """
    address = _address(peer)
    if address is None or not forwarded_for or not _within(address, trusted):
        return str(address) if address else None
    for entry in reversed(forwarded_for.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
        hop = _address(entry)
        if hop is None:
            break
        address = hop
        if not _within(hop, trusted):
            break
    return str(address)


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


@lru_cache(maxsize=4096)
def _address(text: str | None) -> Address | None:
    """``1.2.3.4``, ``1.2.3.4:80``, ``::1``, ``[::1]`` or ``[::1]:80``; None for anything else."""
    if not text or len(text) > _MAX_ADDRESS_CHARS:
        return None
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        # A zone ("%eth0") means something on one machine only, and databases refuse it.
        address = ip_address(host.partition("%")[0] if ":" in host else host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
