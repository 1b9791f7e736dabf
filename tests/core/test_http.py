"""Where a call came from, whatever its headers claim."""

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.core.http import address_within, client_address, parse_network, trusted_networks

TRUSTED = trusted_networks("10.0.0.0/8, 127.0.0.1,::1, fd00::/8")


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("203.0.113.5", None, "203.0.113.5"),
        ("203.0.113.5", "1.2.3.4", "203.0.113.5"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.9", "1.2.3.4"),
        ("10.0.0.1", "10.0.0.7, 10.0.0.9", "10.0.0.7"),
        ("10.0.0.1", "1.2.3.4:99999999999", "1.2.3.4"),
        ("10.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
        ("::1", "2001:DB8::1", "2001:db8::1"),
        ("10.0.0.1", "fe80::1%eth0", "fe80::1"),
        ("::ffff:10.0.0.1", "::ffff:1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "garbage", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4, garbage, 10.0.0.9", "10.0.0.9"),
        ("10.0.0.1", "1.2.3.4%x", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4," * 20_000 + "5.6.7.8", "5.6.7.8"),
        ("10.0.0.1", "1" * 100_000, "10.0.0.1"),
        ("10.0.0.1", ",,,", "10.0.0.1"),
        ("testclient", "1.2.3.4", None),
        (None, "1.2.3.4", None),
    ],
)
def test_find_client_address_believes_trusted_proxies_only(
    peer: str | None, forwarded_for: str | None, address: str | None
) -> None:
    assert client_address(peer, forwarded_for, TRUSTED) == address


def test_find_client_address_without_proxies_ignores_the_header() -> None:
    assert client_address("10.0.0.1", "1.2.3.4", ()) == "10.0.0.1"


@given(st.text() | st.ip_addresses().map(str), st.text() | st.lists(st.ip_addresses()).map(repr))
def test_find_client_address_in_any_text_is_an_address_or_none(peer: str, header: str) -> None:
    for address in (client_address(peer, header, TRUSTED), client_address("::1", header, TRUSTED)):
        assert address is None or str(ip_address(address)) == address


@given(st.ip_addresses(), st.text())
def test_find_client_address_of_untrusted_peer_is_the_peer(peer: object, header: str) -> None:
    assert client_address(str(peer), header, ()) == client_address(str(peer), None, ())


def test_read_trusted_networks_names_the_bad_entry() -> None:
    assert trusted_networks(" ") == ()
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        trusted_networks("::1,10.0.0.0/99")


@pytest.mark.parametrize(
    ("address", "networks", "within"),
    [
        ("192.0.2.7", ("192.0.2.0/24",), True),
        ("192.0.3.7", ("192.0.2.0/24",), False),
        ("192.0.2.7", ("192.0.2.7/32",), True),
        ("192.0.2.7", ("198.51.100.0/24", "192.0.2.0/24"), True),
        ("2001:db8::5", ("2001:db8::/32",), True),
        ("2001:db9::5", ("2001:db8::/32",), False),
        ("2001:db8::5", ("0.0.0.0/0",), False),
        ("192.0.2.7", ("::/0",), False),
        # IPv4 written in IPv6 is IPv4, on either side.
        ("::ffff:192.0.2.7", ("192.0.2.0/24",), True),
        ("::ffff:192.0.3.7", ("192.0.2.0/24",), False),
        ("192.0.2.7", ("::ffff:192.0.2.0/120",), True),
        ("192.0.3.7", ("::ffff:192.0.2.0/120",), False),
        (None, ("0.0.0.0/0", "::/0"), False),
        ("garbage", ("0.0.0.0/0", "::/0"), False),
        ("192.0.2.7", (), False),
    ],
)
def test_find_address_within_networks_of_either_kind(
    address: str | None, networks: tuple[str, ...], within: bool
) -> None:
    assert address_within(address, networks) is within


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 32))
def test_find_address_within_ipv4_network_by_its_leading_bits(
    address: IPv4Address, network: IPv4Address, prefix: int
) -> None:
    shift = 32 - prefix
    base = IPv4Address(int(network) >> shift << shift)
    expected = int(address) >> shift == int(network) >> shift
    for written in (f"{base}/{prefix}", f"::ffff:{base}/{96 + prefix}"):
        for called in (str(address), f"::ffff:{address}"):
            assert address_within(called, (str(parse_network(written)),)) is expected
