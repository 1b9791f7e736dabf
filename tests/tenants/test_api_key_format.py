"""A key is recognised by its shape and checksum before anything is looked up."""

import string
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.api_key_format import ParsedKey, display, generate, parse

BASE62 = string.digits + string.ascii_letters
# A fixed key, so that a change of the format shows: every key in the field would stop working.
KNOWN = "fh_AAAAAAAAAAAA_" + "b" * 32
KNOWN_TOKEN = KNOWN + "1kxr0f"


def test_generate_key_has_the_documented_shape() -> None:
    key = generate()
    assert key.token[:-6] == f"fh_{key.public_id}_{key.secret}"
    assert (len(key.public_id), len(key.secret), len(key.token)) == (12, 32, 54)
    assert set(key.public_id + key.secret + key.token[-6:]) <= set(BASE62)


def test_generate_key_many_times_repeats_nothing_and_uses_every_character() -> None:
    keys = [generate() for _ in range(500)]
    assert len({key.public_id for key in keys}) == len({key.secret for key in keys}) == 500
    assert set("".join(key.secret for key in keys)) == set(BASE62)


def test_parse_key_generated_returns_its_parts() -> None:
    for _ in range(200):
        key = generate()
        assert parse(key.token) == ParsedKey(key.public_id, key.secret)


def test_parse_key_known_checksum_holds() -> None:
    assert parse(KNOWN + "CHECKS") is None
    assert parse(KNOWN_TOKEN) == ParsedKey("A" * 12, "b" * 32)


@given(position=st.integers(0, 53), character=st.sampled_from(BASE62 + "_-. é\n\x00"))
def test_parse_key_with_one_wrong_character_is_none(position: int, character: str) -> None:
    token = KNOWN_TOKEN
    altered = token[:position] + character + token[position + 1 :]
    assert (parse(altered) is None) == (altered != token)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "fh_",
        "sk-something",
        "fh_" + "a" * 51,
        "ﬀh" + "a" * 52,
        "fh_AAAAAAAAAAAA_" + "é" * 38,
        "fh_AAAAAAAAAAAA_" + "٣" * 38,
        "fh_AAAAAAAAAAAA_" + "\ud800" * 38,
        "fh_AAAAAAAAAAAA_" + "b" * 32 + "zzzzzz",
        "x" * 10_000_000,
    ],
)
def test_parse_key_misshapen_is_none(token: str) -> None:
    assert parse(token) is None


@given(st.text(max_size=80))
def test_parse_key_of_any_text_never_raises(text: str) -> None:
    assert parse(text) is None
    assert parse(KNOWN_TOKEN + text[:1]) is None or text == ""


@pytest.mark.parametrize("alter", [str.lower, str.upper, lambda t: f"{t} ", lambda t: f"{t}\n"])
def test_parse_key_copied_badly_is_none(alter: Callable[[str], str]) -> None:
    assert parse(alter(KNOWN_TOKEN)) is None


def test_show_key_hides_the_secret() -> None:
    key = generate()
    assert display(key.public_id) == f"fh_{key.public_id}_…"
    assert key.secret not in repr(key)
    assert key.secret not in repr(parse(key.token))
