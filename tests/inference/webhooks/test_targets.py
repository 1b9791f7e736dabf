"""Where webhooks may go: many spellings of the same forbidden places, and what is allowed."""

import asyncio
import socket
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.models.webhooks import WebhookState
from inference.webhooks import sender
from inference.webhooks.schedule import LONGEST_SECONDS, MOST_TRIES, retry_seconds
from inference.webhooks.sender import Outcome
from inference.webhooks.targets import TargetRefused, clean_url
from portal.core.errors import Invalid, PortalError
from portal.core.outgoing import Targets, origin_of
from tests.certificates import certificate
from tests.inference.webhooks.hooks import LOOPBACK, Hooks
from tests.inference.webhooks.receiver import Receiver

PUBLIC = Targets.parse("public")
EVERYTHING = Targets.parse("public, 0.0.0.0/0, ::/0")


def call(url: str, allowed: Targets) -> Outcome:
    return asyncio.run(sender.send(httpx.URL(url), {}, b"{}", allowed))


FORBIDDEN = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",  # noqa: S104
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:169.254.169.254]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "[2001:db8::1]",
]
# Resolvers take these for addresses, URLs take them for names.
SPELLINGS = ["localhost", "2130706433", "0x7f000001", "0x7f.1", "127.1", "017700000001", "0"]


@pytest.mark.parametrize("host", FORBIDDEN)
def test_hand_in_address_that_is_not_public_is_refused(host: str) -> None:
    with pytest.raises(TargetRefused):
        clean_url(f"https://{host}/", PUBLIC)


@pytest.mark.parametrize("host", [*FORBIDDEN, *SPELLINGS])
def test_call_address_that_is_not_public_makes_no_connection(host: str, receiver: Receiver) -> None:
    outcome = call(f"http://{host}:{receiver.port}/", PUBLIC)
    assert outcome.status is None
    assert outcome.error.startswith(("The receiver's address is not", "The receiver's name can't"))
    assert receiver.received == []


@pytest.mark.parametrize("host", ["localhost", "2130706433", "127.1", "[::ffff:127.0.0.1]"])
def test_call_the_same_addresses_arrives_once_they_are_listed(
    host: str, receiver: Receiver
) -> None:
    """The refusals above are the list's, and not for want of a way there."""
    assert call(f"http://{host}:{receiver.port}/", LOOPBACK).delivered
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.1.1]", "100.100.100.200", "[fd00:ec2::254]",
     "0.0.0.0", "224.0.0.1", "255.255.255.255", "[::]"],  # noqa: S104
)  # fmt: skip
def test_list_every_network_still_leaves_out_metadata_and_link_local(host: str) -> None:
    with pytest.raises(TargetRefused):
        clean_url(f"https://{host}/", EVERYTHING)


def test_call_name_that_was_pointed_elsewhere_is_refused_when_it_is_called(
    hooks: Hooks, receiver: Receiver
) -> None:
    """The name was taken when it was handed in; what it resolves to is asked each time."""
    job_id = hooks.ended(receiver.url(host="localhost"))
    hooks.deliver(targets=PUBLIC)
    assert receiver.received == []
    assert hooks.state(job_id) == WebhookState.PENDING
    hooks.make_due(job_id)
    hooks.deliver()
    assert hooks.state(job_id) == WebhookState.DELIVERED


def test_call_connects_to_the_very_address_that_was_checked(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that answers twice in two ways: the second answer is never asked for."""
    answers = iter(["127.0.0.1", "127.0.0.2", "127.0.0.2"])
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, *rest: object, **more: object) -> object:
        if host != "rebinding.test":
            return real(host, *rest, **more)  # type: ignore[arg-type]
        asked.append(host)
        return real(next(answers), *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    only = Targets.parse("127.0.0.1/32")
    outcome = call(f"http://rebinding.test:{receiver.port}/x", only)
    assert outcome.delivered, outcome
    assert asked == ["rebinding.test"]
    (request,) = receiver.received
    assert request.headers["host"] == f"rebinding.test:{receiver.port}"
    assert not call(f"http://rebinding.test:{receiver.port}/x", only).delivered


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "//example.com/",
        "example.com",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://good.example\\@127.0.0.1/",
        "https://example.com/#fragment",
        "https://example.com:0/",
        "https://example.com:22/",
        "https://example.com:25/",
        "https://example.com:99999/",
        "https://example.com:-1/",
        "https://example.com:x/",
        "https://exa mple.com/",
        "https://example.com/\r\nx: y",
        "https://example.com/\x00",
        "https://例え.jp/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://exa%6dple.com/",
        "https://example.com/" + "x" * 2000,
        "",
    ],
)
def test_hand_in_what_is_no_callback_url_is_refused(url: str) -> None:
    with pytest.raises(PortalError):
        clean_url(url, EVERYTHING)


@given(st.text(max_size=60) | st.text(max_size=40).map(lambda t: f"https://{t}"))
def test_hand_in_any_text_gives_a_url_or_a_refusal(text: str) -> None:
    try:
        url = clean_url(text, PUBLIC)
    except (Invalid, TargetRefused):
        return
    assert url.scheme in ("http", "https")
    assert not url.userinfo
    assert origin_of(url).startswith(f"{url.scheme}://")


@given(st.integers(0, 2**32 - 1))
def test_allow_public_means_no_address_that_python_calls_private(number: int) -> None:
    address = ip_address(number)
    mapped = ip_address(f"::ffff:{address}")
    assert PUBLIC.allow(mapped, "https") == PUBLIC.allow(address, "https")
    if PUBLIC.allow(address, "https"):
        assert address.is_global
        assert not address.is_multicast


def test_call_public_address_needs_https_unless_it_is_listed() -> None:
    address = ip_address("93.184.216.34")
    assert PUBLIC.allow(address, "https")
    assert not PUBLIC.allow(address, "http")
    assert Targets.parse("93.184.216.0/24").allow(address, "http")
    assert not Targets.parse("10.0.0.0/8").allow(address, "https")
    assert not Targets.parse("").allow(address, "https")


def test_show_origin_leaves_out_path_and_query() -> None:
    url = clean_url("https://Hooks.example.com:8443/services/T0?token=x", PUBLIC)
    assert origin_of(url) == "https://hooks.example.com:8443"
    v6 = clean_url("http://[2606:4700::1111]/x", Targets.parse("::/0"))
    assert origin_of(v6) == "http://[2606:4700::1111]"


@pytest.mark.parametrize(("name", "delivered"), [("localhost", True), ("other.example", False)])
def test_call_by_https_checks_the_certificate_against_the_name(
    tmp_path: Path, name: str, delivered: bool
) -> None:
    server, authority = certificate(tmp_path, name)
    with Receiver(tls=server) as receiver:
        url = receiver.url(host="localhost")
        # Nobody vouches for it yet.
        assert "certificate" in call(url, LOOPBACK).error
        sender._tls().load_verify_locations(authority)
        try:
            outcome = call(url, LOOPBACK)
        finally:
            sender._tls.cache_clear()
        assert outcome.delivered is delivered
        assert delivered or "certificate" in outcome.error


@given(st.floats(0, 1, exclude_max=True))
def test_schedule_is_a_day_of_growing_bounded_delays(chance: float) -> None:
    delays = [retry_seconds(tries, chance) for tries in range(1, MOST_TRIES)]
    known = [d for d in delays if d is not None]
    assert len(known) == MOST_TRIES - 1
    assert 45 <= known[0] <= 60
    assert known == sorted(known)
    assert max(known) <= LONGEST_SECONDS
    assert 19 * 3600 <= sum(known) <= 27 * 3600
    assert retry_seconds(MOST_TRIES, chance) is None


@given(st.integers(1, MOST_TRIES - 1), st.lists(st.floats(0, 1, exclude_max=True), min_size=2))
def test_schedule_spreads_what_failed_together(tries: int, chances: list[float]) -> None:
    delays = {retry_seconds(tries, chance) for chance in chances}
    assert len(delays) <= len(set(chances))
    longest = retry_seconds(tries, 0.0)
    assert longest is not None
    assert all(d is not None and 0.75 * longest <= d <= longest for d in delays)
