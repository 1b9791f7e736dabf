"""What is encrypted opens in its own place only, and under keys that are held."""

import base64
import hmac
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.core.crypto import (
    Cipher,
    InvalidCiphertext,
    KeyFault,
    Keyring,
    Peppers,
    new_data_key,
)

ONE, TWO = bytes(range(32)), bytes(range(1, 33))


def _numbered(*keys: tuple[int, bytes]) -> str:
    return ",".join(f"{number}:{base64.b64encode(key).decode()}" for number, key in keys)


def test_wrap_data_key_after_rotation_uses_newest_and_opens_oldest() -> None:
    before = Keyring.parse(_numbered((1, ONE)))
    after = Keyring.parse(_numbered((1, ONE), (7, TWO)))
    key = new_data_key()
    old, new = before.wrap(key, context=b"t"), after.wrap(key, context=b"t")
    assert (int.from_bytes(old[:2]), int.from_bytes(new[:2])) == (1, 7)
    assert after.unwrap(old, context=b"t") == after.unwrap(new, context=b"t") == key
    with pytest.raises(InvalidCiphertext, match="key-encryption key 7 is missing"):
        before.unwrap(new, context=b"t")


def test_wrap_data_key_twice_gives_different_bytes() -> None:
    ring = Keyring.parse(_numbered((1, ONE)))
    assert ring.wrap(TWO, context=b"") != ring.wrap(TWO, context=b"")


def test_wrap_data_key_of_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 16"):
        Keyring.parse(_numbered((1, ONE))).wrap(bytes(16), context=b"")


def test_unwrap_data_key_for_another_context_fails() -> None:
    ring = Keyring.parse(_numbered((1, ONE)))
    with pytest.raises(InvalidCiphertext):
        ring.unwrap(ring.wrap(TWO, context=b"tenant a"), context=b"tenant b")


def test_unwrap_data_key_renumbered_fails() -> None:
    # The same key under two numbers: only the number in front of the ciphertext differs.
    blob = Keyring({1: ONE}).wrap(TWO, context=b"")
    with pytest.raises(InvalidCiphertext):
        Keyring({2: ONE}).unwrap(b"\x00\x02" + blob[2:], context=b"")


@given(position=st.integers(0, 61), bit=st.integers(0, 7))
def test_unwrap_data_key_with_a_flipped_bit_fails(position: int, bit: int) -> None:
    ring = Keyring({1: ONE, 2: TWO})
    blob = bytearray(ring.wrap(ONE, context=b"c"))
    blob[position] ^= 1 << bit
    with pytest.raises(InvalidCiphertext):
        ring.unwrap(bytes(blob), context=b"c")


@given(st.binary(max_size=80))
def test_unwrap_data_key_of_any_bytes_fails_as_invalid(blob: bytes) -> None:
    with pytest.raises(InvalidCiphertext):
        Keyring({1: ONE}).unwrap(blob, context=b"")


GOOD = base64.b64encode(ONE).decode()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "entry 1 is not of the form"),
        ("nonsense", "entry 1 is not of the form"),
        (f"x:{GOOD}", "entry 1 is not of the form"),
        (f"-1:{GOOD}", "entry 1 is not of the form"),
        (f"²:{GOOD}", "entry 1 is not of the form"),
        (f"1:{GOOD},", "entry 2 is not of the form"),
        (f"0:{GOOD}", "from 1 to 32767"),
        (f"32768:{GOOD}", "from 1 to 32767"),
        ("1:!!!", "is not base64"),
        ("1:é", "is not base64"),
        (f"1:{base64.b64encode(bytes(31)).decode()}", "holds 31 bytes; 32 are needed"),
        (_numbered((2, ONE), (1, TWO)), "entry 2: numbers must ascend"),
        (_numbered((1, ONE), (1, TWO)), "entry 2: numbers must ascend"),
        (_numbered((1, ONE), (2, ONE)), "repeats an earlier key"),
    ],
)
def test_parse_keys_malformed_names_the_entry_and_no_key(text: str, fault: str) -> None:
    for parse in (Keyring.parse, Peppers.parse):
        with pytest.raises(KeyFault, match=fault) as raised:
            parse(text)
        assert GOOD not in str(raised.value)
        assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_show_keyring_and_peppers_shows_numbers_only() -> None:
    text = _numbered((1, ONE), (3, TWO))
    assert repr(Keyring.parse(f" {text} ")) == "Keyring(versions=[1, 3])"
    assert repr(Peppers.parse(text)) == "Peppers(versions=[1, 3])"


@given(plaintext=st.binary(max_size=2000), row_id=st.uuids())
def test_decrypt_row_returns_what_was_encrypted(plaintext: bytes, row_id: UUID) -> None:
    blob = Cipher(ONE).encrypt(plaintext, row_id=row_id)
    assert Cipher(ONE).decrypt(blob, row_id=row_id) == plaintext
    assert len(blob) == len(plaintext) + 29


def test_decrypt_row_elsewhere_fails() -> None:
    row_id = uuid4()
    blob = Cipher(ONE).encrypt(b"words", row_id=row_id)
    for cipher, row in (
        (Cipher(ONE), uuid4()),
        (Cipher(TWO), row_id),
        (Cipher(ONE, purpose=b"other"), row_id),
    ):
        with pytest.raises(InvalidCiphertext):
            cipher.decrypt(blob, row_id=row)


@given(data=st.data())
def test_decrypt_row_with_a_flipped_bit_fails(data: st.DataObject) -> None:
    row_id = UUID(int=5)
    blob = bytearray(Cipher(ONE).encrypt(b"some words", row_id=row_id))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(InvalidCiphertext):
        Cipher(ONE).decrypt(bytes(blob), row_id=row_id)


@given(st.binary(max_size=60))
def test_decrypt_row_of_any_bytes_fails_as_invalid(blob: bytes) -> None:
    with pytest.raises(InvalidCiphertext):
        Cipher(ONE).decrypt(blob, row_id=UUID(int=1))


def test_encrypt_rows_from_many_threads_keeps_each_intact() -> None:
    cipher = Cipher(new_data_key())

    def there_and_back(number: int) -> bool:
        row_id, text = UUID(int=number), bytes([number % 256]) * 5000
        return cipher.decrypt(cipher.encrypt(text, row_id=row_id), row_id=row_id) == text

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(2000)))


def test_make_cipher_with_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        Cipher(bytes(31))


def test_fingerprint_text_matches_within_a_tenant_only() -> None:
    first = Cipher(ONE).fingerprint(b"hello")
    assert first == Cipher(ONE).fingerprint(b"hello")
    assert len(first) == 32
    others = {Cipher(TWO).fingerprint(b"hello"), Cipher(ONE).fingerprint(b"hello ")}
    assert first not in others


def test_fingerprint_text_uses_a_key_other_than_the_data_key() -> None:
    assert Cipher(ONE).fingerprint(b"hello") != hmac.digest(ONE, b"hello", "sha256")


def test_match_secret_after_rotation_holds_for_old_and_new() -> None:
    old = Peppers.parse(_numbered((1, ONE)))
    both = Peppers.parse(_numbered((1, ONE), (2, TWO)))
    version, digest = old.digest(b"secret")
    assert (version, len(digest)) == (1, 32)
    assert both.matches(b"secret", version, digest)
    assert both.digest(b"secret")[0] == 2
    assert both.digest(b"secret", 1) == (1, digest)
    assert both.matches(b"secret", *both.digest(b"secret"))


def test_match_secret_wrongly_is_false() -> None:
    peppers = Peppers.parse(_numbered((1, ONE), (2, TWO)))
    _, digest = peppers.digest(b"secret", 1)
    assert not peppers.matches(b"Secret", 1, digest)
    assert not peppers.matches(b"secret", 2, digest)
    assert not peppers.matches(b"secret", 3, digest)
    assert not peppers.matches(b"secret", 1, digest[:-1])
    assert not peppers.matches(b"secret", 1, b"")


def test_digest_secret_under_unknown_pepper_is_refused() -> None:
    with pytest.raises(KeyFault, match="no pepper 9"):
        Peppers({1: ONE}).digest(b"secret", 9)


def test_decrypt_of_a_part_at_another_place_is_refused() -> None:
    cipher, row = Cipher(new_data_key()), uuid4()
    sealed = cipher.encrypt(b"a piece", row_id=row, part=1)
    assert cipher.decrypt(sealed, row_id=row, part=1) == b"a piece"
    for row_id, part in ((row, 0), (row, None), (uuid4(), 1)):
        with pytest.raises(InvalidCiphertext):
            cipher.decrypt(sealed, row_id=row_id, part=part)
