"""Templates and what fits a model's context, whatever is written and found."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.gateway.requests import encoded
from inference.gateway.wire.request import parse_chat_request
from inference.jobs.catalogue import named_models
from knowledge.applications.backends import AppCall, Source, Turn
from knowledge.applications.spec import AppSpec, Sampling
from knowledge.applications.template import fill, places_of
from knowledge.models import AppMode
from knowledge.runner.prompting import NOTHING_FOUND, context_text, fit
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation
from tests.live import FAKE_CONTEXT

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
PLAIN = st.text(st.characters(exclude_characters="{}"), max_size=20)
# What users write: braces, places, and anything else.
WRITTEN = st.lists(PLAIN | st.just("{{") | st.just("}}") | NAMES.map("{{{{{}}}}}".format)).map(
    "".join
)
PASSAGE_CHARS = 600


@given(st.lists(PLAIN | NAMES), st.dictionaries(NAMES, WRITTEN))
def test_fill_puts_in_what_was_written_as_it_stands(
    parts: list[str], values: dict[str, str]
) -> None:
    """What comes out is the template's own text with the values between, and nothing else."""
    template = "".join(f"{{{{{part}}}}}" if part in values else part for part in parts)
    expected = "".join(values.get(part, part) for part in parts)
    assert fill(template, values) == expected


@given(WRITTEN, WRITTEN)
def test_fill_never_lets_what_was_written_name_a_place(query: str, context: str) -> None:
    filled = fill("{{context}}|{{query}}", {"context": context, "query": query})
    assert filled == f"{context}|{query}"


@given(st.text())
def test_fill_without_values_changes_nothing(template: str) -> None:
    assert fill(template, {}) == template
    assert fill(template, dict.fromkeys(places_of(template), "{{x}}")).count("{{x}}") >= 0


def call_of(
    tenant: Organisation, model: str, query: str = "Why?", turns: Sequence[Turn] = (), **spec: Any
) -> AppCall:
    made = {"prompt": "{{context}} {{query}}", "sampling": Sampling(max_tokens=50), **spec}
    return AppCall(
        context=tenant.context,
        app_id=uuid4(),
        slug="app",
        mode=AppMode.CHAT,
        version=1,
        spec=AppSpec(model=model, **made),
        conversation_id=uuid4(),
        message_id=uuid4(),
        query=query,
        history=turns,
    )


def passages(count: int) -> list[Source]:
    return [Source(f"{n}.txt", "x" * PASSAGE_CHARS, 1 / (n + 1)) for n in range(count)]


@pytest.mark.parametrize(("found", "turns"), [(0, 0), (2, 0), (30, 0), (30, 4), (1, 40)])
def test_fit_leaves_room_for_the_answer_and_takes_as_much_as_fits(
    tenant_a: Organisation, model: str, found: int, turns: int
) -> None:
    said = [Turn("q" * 100, "a" * 100)] * turns
    call = call_of(tenant_a, model, turns=said, history=50)
    with tenant_scope(tenant_a.context):
        served = named_models([model])[model]
    fitted = fit(call, passages(found), served)
    assert len(fitted.shown) + fitted.left_out == found
    assert [s.document for s in fitted.shown] == [f"{n}.txt" for n in range(len(fitted.shown))]
    tokens = tokens_of(fitted.body, served)
    assert tokens + 50 <= FAKE_CONTEXT
    if fitted.left_out:
        assert tokens + 50 + PASSAGE_CHARS > FAKE_CONTEXT - 250 * turns
    if found and turns * 200 < FAKE_CONTEXT - 2000:
        assert fitted.shown


def tokens_of(body: bytes, served: Any) -> int:
    return len(encoded(parse_chat_request(body), served))


def test_fit_what_is_too_long_by_itself_is_left_to_admission(
    tenant_a: Organisation, model: str
) -> None:
    call = call_of(tenant_a, model, query="x" * (FAKE_CONTEXT + 1))
    with tenant_scope(tenant_a.context):
        served = named_models([model])[model]
    fitted = fit(call, passages(3), served)
    assert (fitted.shown, fitted.left_out) == ([], 3)


def test_fit_numbers_passages_and_says_when_there_are_none(
    tenant_a: Organisation, model: str
) -> None:
    call = call_of(tenant_a, model, instructions="Be brief. {{context}}")
    body = msgspec.json.decode(fit(call, passages(1), None).body)
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert body["messages"][0]["content"].startswith("Be brief. [1] 0.txt\nxxx")
    assert context_text([]) == NOTHING_FOUND
