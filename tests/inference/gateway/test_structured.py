"""Answers with a structure, as OpenAI's own client asks for them and reads them."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import psycopg
import pytest
from pydantic import BaseModel

from tests import factories, live
from tests.factories import Organisation, unique
from tests.inference.engines.schema_strategies import check_answer
from tests.live import Deployed, LivePortal
from tests.servers import SessionServers

ABOUT_BOB: Any = [{"role": "user", "content": "Tell me of Bob, who is 30, as JSON."}]


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def writer(servers: SessionServers, live_portal: LivePortal) -> Deployed:
    """A deployment of the fake engine whose structured answers are a person."""
    text = '{"name": "Bob Miller", "age": 30}'
    deployed = live.deploy(servers, unique("writer"), options={"structured_text": text})
    live_portal.programs.worker(deployed)
    live_portal.programs.wait_served(live_portal.web, deployed)
    return deployed


@pytest.fixture
def client(live_portal: LivePortal, tenant_a: Organisation) -> Iterator[openai.OpenAI]:
    token = factories.api_key(tenant_a).token
    with openai.OpenAI(base_url=f"{live_portal.base_url}/v1", api_key=token, max_retries=0) as made:
        yield made


def format_of(schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}}


def test_parse_a_pydantic_model_gives_it_back(client: openai.OpenAI, writer: Deployed) -> None:
    answer = client.chat.completions.parse(
        model=writer.model, messages=ABOUT_BOB, response_format=Person
    )
    assert answer.choices[0].message.parsed == Person(name="Bob Miller", age=30)
    assert answer.choices[0].finish_reason == "stop"


def test_stream_a_pydantic_model_gives_it_back(client: openai.OpenAI, writer: Deployed) -> None:
    with client.chat.completions.stream(
        model=writer.model, messages=ABOUT_BOB, response_format=Person
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Person(name="Bob Miller", age=30)


def test_parse_a_response_gives_the_model_back_and_repeats_its_format(
    client: openai.OpenAI, writer: Deployed
) -> None:
    response = client.responses.parse(model=writer.model, input="Bob?", text_format=Person)
    assert response.output_parsed == Person(name="Bob Miller", age=30)
    said: Any = response.text
    assert said.format.type == "json_schema"
    assert said.format.name == "Person"


def test_answer_that_is_cut_ends_by_length(client: openai.OpenAI, writer: Deployed) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=writer.model, messages=ABOUT_BOB, response_format=Person, max_tokens=2
        )


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({"type": "xml"}, "invalid_value", "response_format.type"),
        ({"type": "json_schema"}, "missing_required_parameter", "response_format.json_schema"),
        (
            {"type": "json_schema", "json_schema": {"name": "s"}},
            "missing_required_parameter",
            "response_format.json_schema.schema",
        ),
        (
            {"type": "text", "json_schema": {"name": "s", "schema": {}}},
            "invalid_value",
            "response_format.json_schema.schema",
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "x" * 65, "schema": {}}},
            "string_above_max_length",
            "response_format.json_schema.name",
        ),
        (format_of({"not": {}}), "invalid_json_schema", "response_format.json_schema"),
        (format_of([]), "invalid_json_schema", "response_format.json_schema"),
    ],
)
def test_refuse_a_format_names_what_is_wrong_and_reserves_nothing(
    client: openai.OpenAI, writer: Deployed, given: Any, code: str, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=writer.model, messages=ABOUT_BOB, response_format=given
        )
    assert (caught.value.code, caught.value.param) == (code, param)


def test_keep_the_kind_of_structure_and_no_word_of_its_schema(
    client: openai.OpenAI, writer: Deployed, tenant_a: Organisation, servers: SessionServers
) -> None:
    schema = {"type": "object", "properties": {"secretive": {"type": "null"}}}
    client.chat.completions.create(
        model=writer.model,
        messages=ABOUT_BOB,
        response_format=format_of(schema),
        extra_body={"top_k": 7},
    )
    with psycopg.connect(servers.url("superuser"), autocommit=True) as superuser:
        rows = superuser.execute(
            "SELECT parameters FROM inference_job WHERE tenant_id = %s UNION ALL "
            "SELECT b.detail FROM audit_body b WHERE b.tenant_id = %s",
            [tenant_a.id, tenant_a.id],
        ).fetchall()
    assert rows[0][0]["response_format"] == "json_schema"
    assert rows[0][0]["top_k"] == 7
    assert "secretive" not in json.dumps(rows, default=str)


def test_shipped_model_answers_within_a_schema_streamed_and_whole(
    client: openai.OpenAI, live_portal: LivePortal
) -> None:
    model = live_portal.real.model
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 20, "maximum": 40},
            "sort": {"enum": ["person", "place"]},
        },
        "required": ["name", "age", "sort"],
    }
    asked: dict[str, Any] = {
        "model": model,
        "messages": ABOUT_BOB,
        "response_format": format_of(schema),
        "temperature": 0,
        "max_tokens": 100,
    }
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert whole.choices[0].finish_reason == "stop"
    assert whole.choices[0].message.content == streamed
    check_answer(streamed, schema)
