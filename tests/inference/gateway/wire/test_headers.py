"""Headers in and out; whatever comes in, nothing raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.gateway.wire.errors import insufficient_quota, invalid_api_key, unavailable
from inference.gateway.wire.headers import (
    Allowance,
    client_request_id,
    duration,
    parse_api_key,
    parse_authorization,
    rate_limit_headers,
    retry_after,
    retry_headers,
)


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  a.b-c_d~e+f/g==", "a.b-c_d~e+f/g=="),
        ("BEARER " + "a" * 512, "a" * 512),
        ("Bearer " + "a" * 513, None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer a b", None),
        ("Bearer a\nb", None),
        ("Bearer a\0", None),
        ("Bearer \u00e9", None),
        ("Basic abc", None),
        ("abc", None),
        ("", None),
        (None, None),
    ],
)
def test_parse_authorization_takes_a_well_formed_bearer_only(
    header: str | None, token: str | None
) -> None:
    assert parse_authorization(header) == token


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("abc", "abc"),
        (" a.b-c_d~e+f/g== ", "a.b-c_d~e+f/g=="),
        ("a" * 512, "a" * 512),
        ("a" * 513, None),
        ("a b", None),
        ("a\0", None),
        ("é", None),
        ("", None),
        (None, None),
    ],
)
def test_parse_api_key_takes_a_well_formed_token_only(
    header: str | None, token: str | None
) -> None:
    assert parse_api_key(header) == token


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ("trace-1", "trace-1"),
        (" a b ", "a b"),
        ("a\r\nSet-Colour: x\0\x7f\u00e9", "aSet-Colour: x"),
        ("till 7 fh_Ab3Ab3Ab3Ab3_Ab3Ab3Ab3Ab3Ab3Ab3", "till 7 fh_Ab3Ab3Ab3Ab3_[redacted]"),
        ("x" * 300, "x" * 128),
        ("\0\0", None),
        ("", None),
        (None, None),
    ],
)
def test_read_client_request_id_keeps_what_is_harmless(
    header: str | None, kept: str | None
) -> None:
    assert client_request_id(header) == kept


@given(st.text())
def test_read_any_header_never_raises(header: str) -> None:
    for token in (parse_authorization(header), parse_api_key(header)):
        assert token is None or token.isascii()
    kept = client_request_id(header)
    assert kept is None or (kept.isascii() and kept.isprintable() and 0 < len(kept) <= 128)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (0.0001, "1ms"),
        (0.02, "20ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (7.66, "7.66s"),
        (10, "10s"),
        (60, "1m0s"),
        (86.4, "1m26.4s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (86_400, "24h0m0s"),
    ],
)
def test_write_duration_is_in_openais_format(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "1"), (0, "1"), (0.2, "1"), (1, "1"), (1.01, "2"), (59.5, "60")]
)
def test_write_retry_after_rounds_up_to_whole_seconds(seconds: float, text: str) -> None:
    assert retry_after(seconds) == text


def test_write_rate_limits_names_only_those_that_apply() -> None:
    assert rate_limit_headers() == []
    both = rate_limit_headers(requests=Allowance(60, -1, 0.02), tokens=Allowance(1000, 990, 360))
    assert dict(both) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"0",
        b"x-ratelimit-reset-requests": b"20ms",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"990",
        b"x-ratelimit-reset-tokens": b"6m0s",
    }
    tokens = rate_limit_headers(tokens=Allowance(1, 1, 1))
    assert all(name.endswith(b"-tokens") for name, _ in tokens)


def test_write_retry_advice_stops_clients_on_a_spent_quota() -> None:
    spent = insufficient_quota(
        unit="tokens", scope="tenant", maximum=1, window="day", retry_after=90.5
    )
    assert dict(retry_headers(spent)) == {b"retry-after": b"91", b"x-should-retry": b"false"}
    assert dict(retry_headers(unavailable(0.2))) == {b"retry-after": b"1"}
    assert retry_headers(invalid_api_key()) == []
