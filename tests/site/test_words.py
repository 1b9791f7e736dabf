"""What the pages say: usage, durations, health, differences, refusals."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone, translation
from hypothesis import given
from hypothesis import strategies as st

from audit.admin import changes_of
from inference.admin import duration_text, health_of, money, timeline
from inference.models import Deployment, Job, Worker
from portal.site.refusals import SENTENCES, in_words
from tenants.admin.usage import usage_of
from tenants.models import Quota, QuotaWindow
from tenants.windows import next_reset, window_starts

NOW = datetime(2026, 3, 28, 12, 30, 15, tzinfo=UTC)


def _window(begun: datetime, **counters: int) -> QuotaWindow:
    return QuotaWindow(minute_start=begun, day_start=begun, month_start=begun, **counters)


def test_usage_of_a_window_that_has_ended_is_nought() -> None:
    last_year = timezone.now() - timedelta(days=400)
    window = _window(last_year, tokens_day_used=7, tokens_total_used=9)
    usages = {u.name: u for u in usage_of(Quota(tokens_day=10), window, "UTC")}
    assert usages["tokens_day"].used == 0
    assert usages["tokens_total"].used == 9


def test_usage_shows_used_and_held_as_parts_of_one_bar() -> None:
    window = _window(timezone.now(), tokens_day_used=600, tokens_day_held=900)
    usage = next(
        u for u in usage_of(Quota(tokens_day=1000), window, "UTC") if u.name == "tokens_day"
    )
    assert (usage.used_width, usage.held_width) == (60.0, 40.0)
    assert usage.full
    assert usage.text == "600 used and 900 held of 1,000"


def test_usage_against_a_limit_of_nought_is_full() -> None:
    usage = next(u for u in usage_of(Quota(tokens_day=0), None, "UTC") if u.limit is not None)
    assert usage.full
    assert usage.used_width == 100.0


@given(
    st.integers(1_577_836_800, 2_051_222_400).map(lambda s: datetime.fromtimestamp(s, UTC)),
    st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York", "Europe/Berlin", "Asia/Kolkata"]),
    st.sampled_from(["day", "month"]),
)
def test_reset_is_the_first_moment_of_the_next_window(
    now: datetime, zone: str, window: str
) -> None:
    reset = next_reset(window, now, zone)
    assert reset is not None
    assert reset > now
    local = reset.astimezone(ZoneInfo(zone))
    assert (local.hour, local.minute, local.second) == (0, 0, 0)
    before = reset.astimezone(UTC) - timedelta(microseconds=1)
    assert window_starts(before, zone)[window] == window_starts(now, zone)[window]


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(milliseconds=12), "12 ms"),
        (timedelta(seconds=3.4), "3.40 s"),
        (timedelta(seconds=125), "2 min 5 s"),
    ],
)
def test_durations_are_told_in_a_fitting_unit(span: timedelta, text: str) -> None:
    assert duration_text(span) == text


def test_timeline_of_a_waiting_job_shows_what_is_to_come() -> None:
    steps = timeline(Job(admitted_at=NOW))
    assert [bool(step.at) for step in steps] == [True, False, False, False]


def test_timeline_of_a_cancelled_job_leaves_out_what_never_came() -> None:
    steps = timeline(Job(admitted_at=NOW, finished_at=NOW + timedelta(seconds=2)))
    assert [(step.title, step.since) for step in steps] == [
        ("Admitted", ""),
        ("Finished", "2.00 s"),
    ]


@pytest.mark.parametrize(
    ("states", "kind", "text"),
    [
        ([], "danger", "No worker"),
        (["failed"], "danger", "The worker failed"),
        (["loading"], "info", "A worker is loading the model"),
        (["draining"], "warning", "No worker takes work: the last one drains"),
        (["drained"], "warning", "Drained"),
        (["drained", "unloaded"], "warning", "Drained"),
        (["unloaded"], "warning", "Unloaded"),
        (["stopped"], "danger", "No worker"),
        (["failed", "ready"], "success", "Ready"),
    ],
)
def test_health_says_what_the_workers_mean_together(
    states: list[str], kind: str, text: str
) -> None:
    workers = [Worker(name=s, state=s, heartbeat_at=NOW, detail=f"is {s}") for s in states]
    health = health_of(Deployment(name="d", enabled=True), workers, NOW)
    assert (health.kind, health.text) == (kind, text)


def test_health_of_a_silent_worker_is_no_worker() -> None:
    silent = Worker(name="w-1", state="ready", heartbeat_at=NOW - timedelta(minutes=1), detail="")
    health = health_of(Deployment(name="d", enabled=True), [silent], NOW)
    assert health.text == "No worker"
    assert "w-1" in health.detail


def test_money_is_told_without_idle_noughts() -> None:
    assert money(1_500_000_000, "EUR") == "1.5 EUR"
    assert money(0, "EUR") == "0 EUR"


def test_differences_tell_changed_columns_from_those_that_stayed() -> None:
    changed, same = changes_of({"a": 1, "b": None}, {"a": 1, "b": "x"})
    assert [(c.field, c.before, c.after) for c in changed] == [("b", "—", "x")]
    assert [c.field for c in same] == ["a"]


def test_differences_of_a_new_row_are_all_of_it() -> None:
    changed, same = changes_of(None, {"a": 1, "b": None})
    assert [c.field for c in changed] == ["a", "b"]
    assert same == []


@pytest.mark.parametrize("sentence", SENTENCES)
def test_every_refusal_that_is_listed_has_chinese_words(sentence: str) -> None:
    places = dict.fromkeys(("address", "name", "state", "wanted", "field", "n"), "§")
    spoken = sentence % {**places, "least": "1", "most": "9"}
    with translation.override("zh-hans"):
        said = in_words(spoken)
    assert any("\u4e00" <= character <= "\u9fff" for character in said)
    assert said.count("§") == spoken.count("§")


def test_refusal_that_is_not_listed_is_told_as_it_is() -> None:
    with translation.override("zh-hans"):
        assert in_words("A new kind of refusal.") == "A new kind of refusal."
