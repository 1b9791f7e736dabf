"""Which secret of a key is valid when, by hypothesis."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from portal.core.crypto import Peppers
from tenants.key_secrets import proven_generation

PEPPERS = Peppers({1: b"p" * 32, 2: b"q" * 32})
BEGAN = datetime(2026, 3, 14, tzinfo=UTC)


@dataclass(frozen=True)
class Secrets:
    """A key as a rotation leaves it."""

    pepper_version: int
    secret_hmac: bytes
    generation: int = 1
    former_secret_hmac: bytes | None = None
    former_pepper_version: int | None = None
    former_until: datetime | None = None


@dataclass(frozen=True)
class Rotation:
    """A rotation so many seconds after what was before it; ``pepper`` is the current one then."""

    after: int
    overlap: int
    pepper: int


rotations = st.lists(
    st.builds(Rotation, st.integers(0, 50), st.integers(0, 100), st.sampled_from([1, 2])),
    max_size=6,
)


def name(generation: int) -> str:
    return f"secret-{generation}"


def digest(generation: int, pepper: int) -> bytes:
    return PEPPERS.digest(name(generation).encode(), pepper)[1]


def rotated(key: Secrets, rotation: Rotation, now: datetime) -> Secrets:
    fresh = Secrets(
        rotation.pepper, digest(key.generation + 1, rotation.pepper), key.generation + 1
    )
    if not rotation.overlap:
        return fresh
    return Secrets(
        fresh.pepper_version,
        fresh.secret_hmac,
        fresh.generation,
        key.secret_hmac,
        key.pepper_version,
        now + timedelta(seconds=rotation.overlap),
    )


@given(rotations, st.integers(0, 200))
def test_prove_generation_is_valid_until_its_overlap_or_the_next_rotation_ends_it(
    history: list[Rotation], later: int
) -> None:
    now = BEGAN
    key = Secrets(1, digest(1, 1))
    ends: dict[int, datetime | None] = {1: None}
    for rotation in history:
        now += timedelta(seconds=rotation.after)
        ends = {
            generation: now if end is not None and end > now else end
            for generation, end in ends.items()
        }
        ends[key.generation] = now + timedelta(seconds=rotation.overlap)
        key = rotated(key, rotation, now)
        ends[key.generation] = None
    asked = now + timedelta(seconds=later)
    for generation, end in ends.items():
        proven = proven_generation(name(generation), key, peppers=PEPPERS, now=asked)
        expected = generation if end is None or asked < end else None
        assert proven == expected
    valid = [generation for generation, end in ends.items() if end is None or asked < end]
    assert len(valid) <= 2
    assert max(valid) == key.generation


@given(rotations, st.text(max_size=12), st.integers(0, 200))
def test_prove_generation_with_any_other_secret_is_never_valid(
    history: list[Rotation], guess: str, later: int
) -> None:
    now, key = BEGAN, Secrets(1, digest(1, 1))
    for rotation in history:
        now += timedelta(seconds=rotation.after)
        key = rotated(key, rotation, now)
    asked = now + timedelta(seconds=later)
    guesses = [guess, name(key.generation + 1), name(0), ""]
    assert {proven_generation(g, key, peppers=PEPPERS, now=asked) for g in guesses} == {None}
