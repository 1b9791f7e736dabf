"""Every API of ``/v1`` as its official client meets it, unchanged."""

import asyncio
from typing import Any

import anthropic
import openai
import psycopg
import pytest

from tenants.services import create_api_key, set_quota
from tests import factories
from tests.factories import Organisation
from tests.inference.gateway.apis import (
    APIS,
    CHAT,
    COMPLETIONS,
    HELLO,
    MESSAGES,
    NEW,
    QUESTION,
    RESPONSES,
    Api,
)
from tests.live import FAKE_CONTEXT, LivePortal
from tests.waiting import eventually


@pytest.fixture(params=list(APIS.values()), ids=list(APIS))
def api(request: pytest.FixtureRequest) -> Api:
    made: Api = request.param
    return made


@pytest.fixture(params=list(NEW.values()), ids=list(NEW))
def new_api(request: pytest.FixtureRequest) -> Api:
    made: Api = request.param
    return made


def charged(superuser: psycopg.Connection, tenant: Organisation) -> list[tuple[int, int]]:
    """Prompt and completion tokens of the tenant's ledger entries, in order."""
    return superuser.execute(
        "SELECT prompt_tokens, completion_tokens FROM tenants_ledgerentry WHERE tenant_id = %s "
        "ORDER BY recorded_at, id",
        [tenant.id],
    ).fetchall()


def events(superuser: psycopg.Connection, tenant: Organisation) -> list[tuple[str, str]]:
    """Action and outcome of what was recorded of the tenant's calls, in order."""
    return superuser.execute(
        "SELECT action, outcome FROM audit_event WHERE tenant_id = %s "
        "AND action LIKE 'inference.%%' ORDER BY recorded_at, id",
        [tenant.id],
    ).fetchall()


def test_answer_whole_and_streamed_gives_the_same_text_and_charges_what_it_says(
    live_portal: LivePortal,
    tenant_a: Organisation,
    token: str,
    superuser: psycopg.Connection,
    api: Api,
) -> None:
    with api.client(live_portal.base_url, token) as client:
        whole, streamed = api.ask(client), api.stream(client)
    assert whole == streamed
    assert len(whole.text.split()) == whole.completion_tokens == 7
    assert whole.ended == api.ended[0]
    used = (whole.prompt_tokens, whole.completion_tokens)
    assert charged(superuser, tenant_a) == [used, used]
    assert events(superuser, tenant_a) == [(api.action, "requested"), (api.action, "success")] * 2
    kinds = superuser.execute(
        "SELECT DISTINCT kind FROM inference_job WHERE tenant_id = %s", [tenant_a.id]
    ).fetchall()
    assert kinds == [(api.action.split(".")[1],)]


def test_answer_the_async_client_gives_what_the_sync_one_reads(
    live_portal: LivePortal, token: str, api: Api
) -> None:
    async def both() -> list[Any]:
        async with api.async_client(live_portal.base_url, token) as client:
            asked = [api.ask_async(client, stream=stream) for stream in (False, True)]
            return await asyncio.gather(*asked)

    with api.client(live_portal.base_url, token) as client:
        expected = api.ask(client)
    assert asyncio.run(both()) == [expected, expected]


def test_ask_the_same_in_three_apis_at_temperature_0_gives_the_same_text(
    live_portal: LivePortal, token: str
) -> None:
    system = {"role": "system", "content": "Be brief."}
    url = live_portal.base_url
    with CHAT.client(url, token) as openai_client, MESSAGES.client(url, token) as anthropic_client:
        said = [
            CHAT.ask(openai_client, 20, messages=[system, *HELLO], temperature=0),
            RESPONSES.ask(openai_client, 20, instructions="Be brief.", temperature=0),
            RESPONSES.ask(openai_client, 20, input=[system, *HELLO], temperature=0),
            MESSAGES.ask(anthropic_client, 20, system="Be brief.", extra_body={"temperature": 0}),
        ]
    assert len({(s.text, s.prompt_tokens) for s in said}) == 1


def test_continue_a_text_counts_the_text_alone(live_portal: LivePortal, token: str) -> None:
    with COMPLETIONS.client(live_portal.base_url, token) as client:
        said = COMPLETIONS.ask(client, prompt="<|im_end|>\n<|im_start|>é")
        assert COMPLETIONS.ask(client, prompt=["<|im_end|>\n<|im_start|>é"]) == said
    # A token a byte: no template is around it, and no control token is in it.
    assert said.prompt_tokens == len("<|im_end|>\n<|im_start|>é".encode())


def test_send_a_key_by_either_header_lets_in(live_portal: LivePortal, token: str) -> None:
    body = MESSAGES.body(3)
    with live_portal.client() as client:
        for headers in (
            {"x-api-key": token},
            {"authorization": f"Bearer {token}"},
            {"x-api-key": token, "authorization": "Basic YTpi"},
        ):
            for path, sent in (("/v1/messages", body), ("/v1/chat/completions", CHAT.body(3))):
                assert client.post(path, json=sent, headers=headers).status_code == 200
        both = {"x-api-key": token, "authorization": f"Bearer {token[:-4]}AAAA"}
        for wrong in ({"x-api-key": token[:-4] + "AAAA"}, {"x-api-key": "a" * 5000}, both):
            assert client.post("/v1/messages", json=body, headers=wrong).status_code == 401


def test_use_a_wrong_key_raises_the_clients_own_exception(
    live_portal: LivePortal, api: Api
) -> None:
    with api.client(live_portal.base_url, "fh-wrong") as client:
        for ask in (api.ask, api.stream):
            with pytest.raises(api.errors.AuthenticationError):
                ask(client)


def test_pass_a_quota_raises_the_clients_own_exception_with_when_to_come_back(
    live_portal: LivePortal, tenant_a: Organisation, token: str, api: Api
) -> None:
    set_quota(context=factories.TESTS, tenant_id=tenant_a.id, requests_minute=1)
    with api.client(live_portal.base_url, token) as client:
        api.ask(client)
        for ask in (api.ask, api.stream):
            with pytest.raises(api.errors.RateLimitError) as full:
                ask(client)
            headers = full.value.response.headers
            assert 1 <= int(headers["retry-after"]) <= 60
            assert headers["x-ratelimit-remaining-requests"] == "0"
            assert "x-should-retry" not in headers
            if api is MESSAGES:
                assert headers["anthropic-ratelimit-requests-limit"] == "1"
                assert headers["anthropic-ratelimit-requests-remaining"] == "0"
                assert headers["anthropic-ratelimit-requests-reset"].endswith("Z")
        set_quota(
            context=factories.TESTS, tenant_id=tenant_a.id, requests_minute=None, cost_total=0
        )
        with pytest.raises(api.errors.RateLimitError) as spent:
            api.ask(client)
        assert spent.value.response.headers["x-should-retry"] == "false"


def test_ask_beyond_the_context_names_the_parameter_that_holds_the_prompt(
    live_portal: LivePortal, token: str, api: Api
) -> None:
    prompt = {CHAT.name: "messages", COMPLETIONS.name: "prompt", RESPONSES.name: "input"}
    with api.client(live_portal.base_url, token) as client:
        with pytest.raises(api.errors.BadRequestError) as long:
            api.ask(client, FAKE_CONTEXT)
    assert told(long.value) == ("context_length_exceeded", prompt.get(api.name, "messages"))
    assert f"maximum context length is {FAKE_CONTEXT} tokens" in str(long.value)


def test_ask_an_unknown_model_raises_the_clients_own_exception(
    live_portal: LivePortal, token: str, api: Api
) -> None:
    with api.client(live_portal.base_url, token) as client:
        with pytest.raises(api.errors.NotFoundError) as unknown:
            api.ask(client, model="gpt-none")
    assert told(unknown.value) == ("model_not_found", "model")


UNSUPPORTED: list[tuple[Api, dict[str, Any], str]] = [
    (COMPLETIONS, {"best_of": 2}, "best_of"),
    (COMPLETIONS, {"echo": True}, "echo"),
    (COMPLETIONS, {"suffix": "x"}, "suffix"),
    (COMPLETIONS, {"prompt": ["a", "b"]}, "prompt"),
    (COMPLETIONS, {"prompt": [1, 2]}, "prompt"),
    (COMPLETIONS, {"prompt": [[1, 2]]}, "prompt"),
    (RESPONSES, {"previous_response_id": "resp_1"}, "previous_response_id"),
    (RESPONSES, {"background": True}, "background"),
    (RESPONSES, {"tools": [{"type": "web_search"}]}, "tools[0].type"),
    (RESPONSES, {"reasoning": {"effort": "low"}}, "reasoning"),
    (RESPONSES, {"text": {"verbosity": "low"}}, "text.verbosity"),
    (RESPONSES, {"truncation": "auto"}, "truncation"),
    (
        RESPONSES,
        {"input": [{"type": "computer_call_output", "call_id": "c"}]},
        "input[0].type",
    ),
    (
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]},
        "input[0].content[0].type",
    ),
    (MESSAGES, {"tools": [{"name": "f", "input_schema": {"type": "object"}}]}, "tools"),
    (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.type"),
    (
        MESSAGES,
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": {"type": "url", "url": "https://x.example"}}
                    ],
                }
            ]
        },
        "messages[0].content[0].type",
    ),
    (MESSAGES, {"messages": [*HELLO, {"role": "assistant", "content": "It"}]}, "messages[1].role"),
]


@pytest.mark.parametrize(
    ("asked", "changes", "param"), UNSUPPORTED, ids=[f"{a.name}-{p}" for a, _, p in UNSUPPORTED]
)
def test_ask_for_what_is_not_served_is_refused_by_name(
    live_portal: LivePortal, token: str, asked: Api, changes: dict[str, Any], param: str
) -> None:
    with asked.client(live_portal.base_url, token) as client:
        with pytest.raises(asked.errors.BadRequestError) as refused:
            asked.ask(client, **changes)
    assert told(refused.value) == ("unsupported_parameter", param)
    assert "not supported" in str(refused.value)


def told(error: Any) -> tuple[str, str | None]:
    """Code and parameter of a refusal, as the client hands them out."""
    if isinstance(error, anthropic.APIStatusError):
        details = error.body["error"]["details"]  # type: ignore[index]
        assert details["error_code"] == error.error_code
        return details["error_code"], details.get("param")
    return error.code, error.param


def test_stop_at_a_sequence_is_told_as_each_api_tells_it(
    live_portal: LivePortal, token: str
) -> None:
    url = live_portal.base_url
    with MESSAGES.client(url, token) as anthropic_client, CHAT.client(url, token) as client:
        whole = MESSAGES.ask(anthropic_client, 30).text.split()
        sequences = ["no such words", whole[4]]
        asked = {**MESSAGES.body(30), "stop_sequences": sequences}
        message = anthropic_client.messages.create(**asked)
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", whole[4])
        assert whole[4] not in message.content[0].text
        with anthropic_client.messages.stream(**asked) as stream:
            final = stream.get_final_message()
        assert final.to_dict()["content"] == message.to_dict()["content"]
        assert (final.stop_reason, final.stop_sequence) == ("stop_sequence", whole[4])
        continued = COMPLETIONS.ask(client, 30).text
        word = continued.split()[5]
        stopped = COMPLETIONS.ask(client, 30, stop=[word])
        assert (stopped.ended, stopped.text) == ("stop", continued.split(word)[0])


def test_read_a_response_repeats_its_request_and_says_that_nothing_is_stored(
    live_portal: LivePortal, tenant_a: Organisation, token: str, superuser: psycopg.Connection
) -> None:
    asked = {
        **RESPONSES.body(5),
        "instructions": "Be brief.\u2028Be kind.",
        "metadata": {"ticket": "order-66"},
        "temperature": 0.5,
        "store": True,
        "user": "till-7",
    }
    with RESPONSES.client(live_portal.base_url, token) as client:
        answer = client.responses.create(**asked)
        events = list(client.responses.create(**asked, stream=True))
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(answer.id)
    for read in (answer, events[-1].response, events[0].response):
        assert read.metadata == {"ticket": "order-66"}
        assert (read.instructions, read.temperature, read.top_p) == (asked["instructions"], 0.5, 1)
        assert (read.max_output_tokens, read.user, read.store) == (5, "till-7", False)
        assert (read.object, read.previous_response_id, read.tools) == ("response", None, [])
    assert answer.incomplete_details.reason == "max_output_tokens"
    kept = superuser.execute(
        "SELECT DISTINCT parameters FROM inference_job WHERE tenant_id = %s", [tenant_a.id]
    ).fetchall()
    assert kept == [({"max_tokens": 5, "temperature": 0.5, "user": "till-7"},)]


def test_stream_a_response_sends_the_events_of_the_api_in_order(
    live_portal: LivePortal, token: str
) -> None:
    with RESPONSES.client(live_portal.base_url, token) as client:
        events = list(client.responses.create(**RESPONSES.body(4), stream=True))
    kinds = [event.type.removeprefix("response.") for event in events]
    deltas = kinds.count("output_text.delta")
    assert deltas >= 1
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added",
        *["output_text.delta"] * deltas,
        "output_text.done", "content_part.done", "output_item.done", "incomplete",
    ]  # fmt: skip
    text = events[-1].response.output_text
    done = dict(zip(kinds, events, strict=True))
    assert done["output_text.done"].text == text
    assert done["content_part.done"].part.text == text
    assert done["output_item.done"].item == events[-1].response.output[0]


def test_stream_a_message_sends_the_events_of_the_api_in_order(
    live_portal: LivePortal, token: str
) -> None:
    with live_portal.client(token) as client:
        body = {**MESSAGES.body(4), "stream": True}
        with client.stream("POST", "/v1/messages", json=body) as streamed:
            lines = [line for line in streamed.iter_lines() if line.startswith("event: ")]
            assert streamed.headers["request-id"] == streamed.headers["x-request-id"]
    kinds = [line.removeprefix("event: ") for line in lines]
    deltas = kinds.count("content_block_delta")
    assert deltas >= 1
    assert kinds == [
        "message_start", "content_block_start", "ping",
        *["content_block_delta"] * deltas,
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip


def test_return_an_answer_as_history_is_taken_back(live_portal: LivePortal, token: str) -> None:
    url = live_portal.base_url
    again = {"role": "user", "content": "Again."}
    with CHAT.client(url, token) as client, MESSAGES.client(url, token) as anthropic_client:
        response = client.responses.create(**RESPONSES.body(5))
        history = [*HELLO, *response.output, again]
        assert RESPONSES.ask(client, input=history).completion_tokens == 7
        message = anthropic_client.messages.create(**MESSAGES.body(5))
        turns = [*HELLO, {"role": "assistant", "content": message.content}, again]
        assert MESSAGES.ask(anthropic_client, messages=turns).completion_tokens == 7


def test_count_tokens_equals_what_a_message_is_charged_and_charges_nothing(
    live_portal: LivePortal, tenant_a: Organisation, token: str, superuser: psycopg.Connection
) -> None:
    asked = {"model": "fake-chat", "messages": HELLO, "system": [{"type": "text", "text": "Hm."}]}
    set_quota(context=factories.TESTS, tenant_id=tenant_a.id, requests_day=1)
    with MESSAGES.client(live_portal.base_url, token) as client:
        counted = client.messages.count_tokens(**asked).input_tokens
        assert charged(superuser, tenant_a) == []
        action = "inference.count_tokens"
        assert events(superuser, tenant_a) == [(action, "requested"), (action, "success")]
        message = client.messages.create(**asked, max_tokens=3)
        assert message.usage.input_tokens == counted
        with pytest.raises(anthropic.NotFoundError):
            client.messages.count_tokens(model="gpt-none", messages=HELLO)
        with pytest.raises(anthropic.BadRequestError):
            client.messages.count_tokens(**asked, thinking={"type": "enabled", "budget_tokens": 9})
    with MESSAGES.client(live_portal.base_url, "fh-wrong") as stranger:
        with pytest.raises(anthropic.AuthenticationError):
            stranger.messages.count_tokens(**asked)


def test_count_tokens_of_a_model_that_the_key_may_not_use_hides_it(
    live_portal: LivePortal, tenant_a: Organisation
) -> None:
    key = create_api_key(
        context=tenant_a.context, name="n", scopes=["inference"], allowed_models=["another"]
    )
    with MESSAGES.client(live_portal.base_url, key.token) as client:
        with pytest.raises(anthropic.NotFoundError):
            client.messages.count_tokens(model="fake-chat", messages=HELLO)
        assert client.models.list().data == []


def test_list_models_to_anthropics_client(live_portal: LivePortal, token: str) -> None:
    with MESSAGES.client(live_portal.base_url, token) as client:
        listed = {model.id: model for model in client.models.list()}
        found = client.models.retrieve("fake-chat")
        with pytest.raises(anthropic.NotFoundError) as unknown:
            client.models.retrieve("nothing")
    assert listed["fake-chat"] == found
    assert (found.type, found.display_name, found.lifecycle) == ("model", "fake-chat", "active")
    assert unknown.value.type == "not_found_error"


def test_go_away_from_a_stream_cancels_the_generation(
    live_portal: LivePortal, tenant_a: Organisation, token: str, superuser: psycopg.Connection,
    new_api: Api,
) -> None:  # fmt: skip
    with new_api.client(live_portal.base_url, token) as client:
        stream = new_api.create(client)(**new_api.body(3000), stream=True)
        for event in stream:
            if "delta" in getattr(event, "type", "delta"):
                break
        stream.close()

    def ended() -> list[tuple[Any, ...]]:
        return superuser.execute(
            "SELECT error_code, watermark < 3000 FROM inference_job "
            "WHERE tenant_id = %s AND finished_at IS NOT NULL",
            [tenant_a.id],
        ).fetchall()

    assert eventually(ended) == [("cancelled", True)]
    assert charged(superuser, tenant_a) != []


def test_refuse_in_anthropics_shape_names_type_code_and_request(
    live_portal: LivePortal, token: str
) -> None:
    with live_portal.client(token) as client:
        for sent, status, kind in (
            ({"json": {"model": "fake-chat"}}, 400, "invalid_request_error"),
            ({"json": {**MESSAGES.body(3), "model": "x"}}, 404, "not_found_error"),
            ({"content": b" " * (4 * 1024 * 1024 + 1)}, 413, "request_too_large"),
        ):
            headers = {"content-type": "application/json"}
            answer = client.post("/v1/messages", headers=headers, **sent)
            body = answer.json()
            assert (answer.status_code, body["type"], body["error"]["type"]) == (
                status, "error", kind,
            )  # fmt: skip
            assert body["request_id"] == answer.headers["request-id"]
        batches = client.get("/v1/messages/batches")
        assert (batches.status_code, batches.json()["error"]["type"]) == (404, "not_found_error")
        wrong = client.get("/v1/messages")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert wrong.json()["type"] == "error"


def test_stream_with_the_helpers_of_the_clients_gives_the_final_answer(
    live_portal: LivePortal, token: str
) -> None:
    url = live_portal.base_url
    with CHAT.client(url, token) as client, MESSAGES.client(url, token) as anthropic_client:
        with anthropic_client.messages.stream(**MESSAGES.body(9)) as messages:
            text = "".join(messages.text_stream)
        assert text == MESSAGES.ask(anthropic_client, 9).text
        beta = anthropic_client.beta.messages.create(**MESSAGES.body(9))
        assert beta.content[0].text == text
        with client.responses.stream(model="fake-chat", input=QUESTION, max_output_tokens=9) as s:
            seen = [event for event in s if event.type == "response.output_text.delta"]
        assert seen[-1].snapshot == RESPONSES.ask(client, 9).text
