"""Where a call came from, whatever its headers claim."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.core.http import client_address, trusted_networks

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
