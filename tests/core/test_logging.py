"""Nothing secret reaches a log line, and logging never fails its caller."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from portal.core.actors import Actor, ActorType, Context
from portal.core.logging import bound, configure, redact_event
from portal.core.redaction import MAX_STRING_CHARS, is_sensitive, mask, redact
from tenants.api_key_format import generate

NEEDLE = "Zq7needleXw9"
API_KEY = f"fh_AAAAAAAAAAAA_{NEEDLE}{'b' * 26}"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Where log lines go; the logging of the test run is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure("json", "info", "gateway", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def _written(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _log() -> Any:
    return structlog.get_logger("tests.log")


def test_write_event_gives_one_json_line_with_its_origin(lines: io.StringIO) -> None:
    _log().info("quota.exceeded", limit=5, tenant="大学")
    (line,) = _written(lines)
    datetime.fromisoformat(line.pop("timestamp"))
    assert line == {
        "event": "quota.exceeded",
        "level": "info",
        "logger": "tests.log",
        "process": "gateway",
        "limit": 5,
        "tenant": "大学",
    }


def test_write_event_below_the_level_writes_nothing(lines: io.StringIO) -> None:
    _log().debug("quota.loaded")
    logging.getLogger("library").debug("detail")
    assert lines.getvalue() == ""


def test_write_stdlib_record_gives_the_same_shape(lines: io.StringIO) -> None:
    logging.getLogger("library").warning("lost %s of %d", API_KEY, 7)
    (line,) = _written(lines)
    assert line["event"] == "lost fh_AAAAAAAAAAAA_[redacted] of 7"
    assert (line["level"], line["logger"], line["process"]) == ("warning", "library", "gateway")


def test_write_warning_reaches_the_log(lines: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"old way to pass token={NEEDLE}", DeprecationWarning, stacklevel=1)
    (line,) = _written(lines)
    assert "DeprecationWarning" in line["event"]
    assert NEEDLE not in lines.getvalue()


def test_configure_twice_writes_each_line_once(lines: io.StringIO) -> None:
    second = io.StringIO()
    configure("json", "warning", "worker", stream=second)
    structlog.get_logger("again").warning("lease.lost")
    logging.getLogger("library").info("below")
    assert lines.getvalue() == ""
    assert [line["process"] for line in _written(second)] == ["worker"]


def test_write_inside_bound_names_request_tenant_and_actor(lines: io.StringIO) -> None:
    tenant, user = uuid4(), uuid4()
    context = Context(Actor(ActorType.USER, user, "a@b.c"), tenant_id=tenant, request_id="r-1")
    with bound(context):
        _log().info("key.created")
        logging.getLogger("library").info("inside")
    _log().info("key.listed")
    first, second, after = _written(lines)
    expected = {"request_id": "r-1", "tenant_id": str(tenant), "actor_id": str(user)}
    assert expected.items() <= first.items()
    assert expected.items() <= second.items()
    assert not expected.keys() & after.keys()


def test_write_inside_bound_of_the_system_names_its_label(lines: io.StringIO) -> None:
    with bound(Context.system("sweeper")):
        _log().info("queue.rung")
    (line,) = _written(lines)
    assert line["actor_id"] == "sweeper"
    assert "tenant_id" not in line


def _fail() -> None:
    local_secret = "localvalue" + "seen"
    raise ValueError(f"{len(local_secret)} refused postgres://app:{NEEDLE}@db/portal")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_write_exception_shows_frames_without_locals_or_secrets(
    lines: io.StringIO, log_format: Any
) -> None:
    configure(log_format, "info", "gateway", stream=lines)
    try:
        _fail()
    except ValueError:
        structlog.get_logger("fresh").exception("call.failed", password=NEEDLE)
        logging.getLogger("library").exception("failed")
    written = lines.getvalue()
    assert written.count("in _fail") == 2
    assert written.count("14 refused postgres://[redacted]@db/portal") >= 2
    assert "localvalueseen" not in written
    assert NEEDLE not in written


def test_write_chained_exception_masks_every_link(lines: io.StringIO) -> None:
    try:
        try:
            _fail()
        except ValueError as fault:
            fault.add_note(f"Authorization: Basic {NEEDLE}")
            raise RuntimeError(f"key {API_KEY}") from fault
    except RuntimeError:
        _log().exception("call.failed")
    (line,) = _written(lines)
    assert "direct cause" in line["exception"]
    assert NEEDLE not in lines.getvalue()


def test_write_malformed_stdlib_call_says_so_without_its_arguments(
    lines: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("json", "info", "gateway", stream=lines)  # without the test runner's own handlers
    logging.getLogger("library").error("%d items", NEEDLE)
    (line,) = _written(lines)
    assert line["event"] == "log.failed_to_write"
    assert line["logger"] == "library"
    assert NEEDLE not in lines.getvalue() + "".join(capsys.readouterr())


class _Hostile:
    def __repr__(self) -> str:
        return NEEDLE

    __str__ = __repr__


class _HostileFault(Exception):
    def __str__(self) -> str:
        raise RuntimeError(NEEDLE)


@pytest.mark.parametrize(
    "value",
    [
        _Hostile(),
        _HostileFault(),
        10**6000,
        float("nan"),
        "\ud800",
        b"\xff\xfe",
        {1, 2},
        {(1, 2): 3, None: 4},
        iter([NEEDLE]),
        type,
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_write_any_object_never_raises(lines: io.StringIO, value: object) -> None:
    configure("json", "info", "gateway", stream=lines)  # without the test runner's own handlers
    _log().info("thing.seen", value=value, nested=[{"x": value}])
    assert len(_written(lines)) == 1
    assert NEEDLE not in lines.getvalue()


def test_write_cyclic_structure_ends(lines: io.StringIO) -> None:
    cycle: dict[str, Any] = {}
    cycle["again"] = [cycle, cycle, cycle]
    _log().info("thing.seen", cycle=cycle)
    assert [line["event"] for line in _written(lines)] == ["thing.seen"]


def test_write_huge_structure_is_bounded(lines: io.StringIO) -> None:
    configure("json", "info", "gateway", stream=lines)  # without the test runner's own handlers
    _log().info(
        "thing.seen", rows=[["x" * 5000] * 500] * 500, names={str(n): n for n in range(9999)}
    )
    assert len(lines.getvalue()) < 64 * 1024
    assert len(_written(lines)) == 1


def test_write_to_a_closed_stream_does_not_raise(lines: io.StringIO) -> None:
    log = _log()
    lines.close()
    log.info("worker.stopped")


def test_redact_unreadable_record_is_replaced() -> None:
    class Broken(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError(NEEDLE)

    replaced = redact_event(None, "info", {"event": "thing.seen", "value": Broken()})
    assert replaced["event"] == "log.failed_to_redact"
    assert NEEDLE not in str(replaced)


SENSITIVE = [
    "password",
    "PGPASSWORD",
    "new-password",
    "secret",
    "client_secret",
    "SECRET_KEY",
    "token",
    "accessToken",
    "csrf_token",
    "Authorization",
    "Proxy-Authorization",
    "api_key",
    "apiKey",
    "X-API-KEY",
    "prompt",
    "system_prompt",
    "messages",
    "content",
    "Cookie",
    "set-cookie",
    "sessionid",
    "database_url",
    "DATABASE_URL_OWNER",
    "redis_url",
    "encryption_keys",
    "api_key_peppers",
    "tokens",
    "answer",
]
HARMLESS = [
    "event",
    "level",
    "api_key_id",
    "api_key_public_id",
    "request_id",
    "tenant_id",
    "actor_id",
    "status",
    "content_type",
    "content_length",
    "tokenizer",
    "prompt_template_version",
    "url",
    "message",
]


@pytest.mark.parametrize("name", SENSITIVE)
def test_redact_sensitive_name_removes_the_value(name: str) -> None:
    assert is_sensitive(name)
    assert redact({name: NEEDLE, "n": [{name: [NEEDLE]}]}) == {
        name: "[redacted]",
        "n": [{name: "[redacted]"}],
    }


@pytest.mark.parametrize("name", HARMLESS)
def test_redact_harmless_name_keeps_the_value(name: str) -> None:
    assert redact({name: "value"}) == {name: "value"}


def test_redact_token_counts_keeps_numbers_only() -> None:
    record = {"prompt_tokens": 7, "max_tokens": None, "tokens": [NEEDLE], "password": 1234}
    assert redact(record) == {
        "prompt_tokens": 7,
        "max_tokens": None,
        "tokens": "[redacted]",
        "password": "[redacted]",
    }


def test_redact_known_types_shows_them_readably() -> None:
    class Colour(Enum):
        RED = "red"

    @dataclass
    class Job:
        id: UUID
        prompt: str
        hidden: str = field(default=NEEDLE, repr=False)

    record = {
        "id": UUID(int=1),
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "path": Path("/x"),
        "colour": Colour.RED,
        "job": Job(UUID(int=2), NEEDLE),
        "fault": ValueError(f"no {API_KEY}"),
        "raw": b"bytes",
        "other": _Hostile(),
    }
    assert redact(record) == {
        "id": "00000000-0000-0000-0000-000000000001",
        "at": "2026-01-02T00:00:00+00:00",
        "path": "/x",
        "colour": "red",
        "job": {"id": "00000000-0000-0000-0000-000000000002", "prompt": "[redacted]"},
        "fault": "ValueError: no fh_AAAAAAAAAAAA_[redacted]",
        "raw": "bytes",
        "other": "<_Hostile>",
    }


@pytest.mark.parametrize(
    "text",
    [
        f"Bearer {NEEDLE}",
        f"authorization: bearer   {NEEDLE}",
        f"Authorization: Basic {NEEDLE}",
        f"Authorization=Digest username=x, response={NEEDLE}",
        f"Cookie: a=b; sessionid={NEEDLE}",
        f"postgres://app:{NEEDLE}@db:5432/portal",
        f"postgresql://app:a@b/{NEEDLE}#?@db/portal",
        f"redis://:{NEEDLE}@cache:6379/0",
        f"rediss://u:{NEEDLE}@cache and redis://u:{NEEDLE}@cache",
        f"unix://u:{NEEDLE}@/run/v.sock?db=0",
        f"unix:///run/v.sock?password={NEEDLE}&db=0",
        f"https://u:{NEEDLE}@host/path?x=1",
        f"host=db password={NEEDLE} user=app",
        f"password='a {NEEDLE}' user=app",
        f'password="a {NEEDLE}',
        f"PASSWORD = 'it\\'s {NEEDLE}",
        f'{{"api_key": "{NEEDLE}", "x": 1}}',
        f'{{\\"client_secret\\": \\"{NEEDLE}\\"}}',
        f"Settings(secret_key='{NEEDLE}', debug=True)",
        f"messages=[{{'role': 'user', 'content': 'tell {NEEDLE} all'}}]",
        f"Input should be a string [type=x, input_value='say {NEEDLE}', input_type=str]",
        f"token: {NEEDLE}",
        f"x{API_KEY}x",
        API_KEY.upper().replace(NEEDLE.upper(), NEEDLE),
        f"fh_{NEEDLE}",
        f"eyJhbGciOiJFZERTQSJ9.{NEEDLE}.{NEEDLE}",
    ],
)
def test_mask_text_with_a_credential_hides_it(text: str) -> None:
    for around in (text, f"before {text} after", f"one\n{text}\ntwo", f'"{text}"'):
        assert NEEDLE not in mask(around)


@pytest.mark.parametrize(
    "text",
    [
        "job finished after 3 tokens",
        "password authentication failed for user app",
        "https://host/path?page=2",
        "postgres://db/portal",
        "prompt_tokens=5 max_tokens=7",
        "mail to a@b.c",
        "fh_AAAAAAAAAAAA_…"[3:],
        "大学 é",
    ],
)
def test_mask_text_without_a_credential_keeps_it(text: str) -> None:
    assert mask(text) == text


def test_mask_generated_key_keeps_its_public_id() -> None:
    key = generate()
    assert mask(f"<{key.token}>") == f"<fh_{key.public_id}_[redacted]>"


@given(st.integers(0, 70_000), st.integers(0, 70_000))
def test_mask_long_text_hides_a_key_wherever_it_lies(before: int, after: int) -> None:
    masked = mask(f"{'x' * before} {API_KEY} {'y ' * (after // 2)}")
    assert NEEDLE not in masked
    assert len(masked) <= MAX_STRING_CHARS


def test_mask_text_cut_inside_a_credential_hides_its_first_half() -> None:
    # The first URL is so long that the second lies across the end of what is looked at, and
    # shrinks so much that what follows it would be shown.
    first = f"redis://:{'p' * 65_000}@cache "
    second = f"redis://:{NEEDLE}{'q' * 1000}@cache"
    assert len(first) + 30 < 64 * 1024 < len(first + second)
    assert mask(first + second) == "redis://[redacted]@cache …"


def test_mask_lone_surrogate_gives_valid_utf_8() -> None:
    assert mask("大\ud800") == "大\\ud800"


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "piece",
    ["x", "://", "fh_", "eyJa.", "password", "password ", "api_key", "token='", "cookie=", "a:b@"],
)
def test_mask_long_repetition_takes_linear_time(piece: str) -> None:
    for _ in range(10):
        assert len(mask(piece * (60_000 // len(piece)))) <= MAX_STRING_CHARS


def test_mask_long_text_keeps_beginning_and_end() -> None:
    masked = mask("begin " + "x " * 20_000 + "end")
    assert masked.startswith("begin ")
    assert masked.endswith(" end")
    assert "characters omitted" in masked


SECRETS = st.sampled_from(
    [
        API_KEY,
        f"Bearer {NEEDLE}",
        f"redis://:{NEEDLE}@cache/0",
        f"postgres://app:{NEEDLE}@db/portal",
        f"api_key={NEEDLE}",
    ]
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
KEYS = st.text(max_size=8)


def _surrounded(secret: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    # White space around it, as in any message; a letter before would change what the shape means.
    text = st.tuples(st.text(max_size=12), secret, st.text(max_size=12)).map("\n".join)
    encoded = text.map(lambda words: words.encode("utf-8", "replace"))
    return text | encoded | text.map(ValueError)


def _nest(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    plain = st.lists(PLAIN, max_size=2)
    return st.one_of(
        st.tuples(plain, inner, plain).map(lambda parts: [*parts[0], parts[1], *parts[2]]),
        st.tuples(plain, inner).map(lambda parts: (*parts[0], parts[1])),
        st.tuples(KEYS, inner).map(lambda pair: {pair[0]: pair[1]}),
        st.tuples(KEYS, inner, KEYS, PLAIN).map(
            lambda parts: {parts[2]: parts[3], parts[0]: parts[1]}
        ),
    )


SENSITIVE_PART = st.sampled_from(SENSITIVE).flatmap(
    lambda name: st.sampled_from(
        [
            {name: NEEDLE},
            {name: {"x": [NEEDLE]}},
            {name.encode(): NEEDLE.encode()},
            (name, NEEDLE),
            [(name.encode(), NEEDLE.encode())],
        ]
    )
)
AS_KEY = SECRETS.map(lambda secret: {secret: 1})
STRUCTURES = st.recursive(_surrounded(SECRETS) | SENSITIVE_PART | AS_KEY, _nest, max_leaves=6)


@given(field_name=KEYS, structure=STRUCTURES)
def test_redact_secret_anywhere_never_comes_out(field_name: str, structure: Any) -> None:
    event = redact_event(None, "info", {"event": "thing.seen", field_name: structure})
    written = json.dumps(event)
    assert NEEDLE not in written
    assert "log.failed_to_redact" not in written


def test_configure_without_stream_writes_to_standard_error(
    lines: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("json", "info", "gateway")
    structlog.get_logger("plain").info("worker.started")
    captured = capsys.readouterr()
    assert json.loads(captured.err)["event"] == "worker.started"
    assert captured.out == ""
