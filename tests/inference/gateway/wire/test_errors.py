"""Errors as OpenAI sends them and as its client raises them."""

import json
from datetime import UTC, datetime, timedelta, timezone

import httpx2
import openai
import pytest

from inference.gateway.wire import errors
from inference.gateway.wire.headers import retry_headers
from inference.gateway.wire.response import ChunkEncoder
from portal.core.errors import Forbidden, Invalid, PortalError, TooMany, Unauthenticated

RESETS = datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=1)))


def client(status: int, answer: bytes, headers: list[tuple[bytes, bytes]]) -> openai.OpenAI:
    def handle(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=answer, headers=headers)

    transport = httpx2.MockTransport(handle)
    return openai.OpenAI(
        api_key="k",
        base_url="http://test/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=transport),
    )


def limited(unit: str) -> TooMany:
    return errors.rate_limited(
        unit=unit, scope="API key", maximum=60, window="minute", resets_at=RESETS, retry_after=12.2
    )


def spent(resets_at: datetime | None) -> TooMany:
    return errors.insufficient_quota(
        unit="tokens", scope="tenant", maximum=1000, window="day", resets_at=resets_at
    )


@pytest.mark.parametrize(
    ("error", "raised", "status", "type_", "code", "param"),
    [
        (
            Invalid("x", code="unknown_parameter", param="top_k"),
            openai.BadRequestError,
            400,
            "invalid_request_error",
            "unknown_parameter",
            "top_k",
        ),
        (
            errors.context_length_exceeded(context=10, prompt_tokens=11, max_tokens=None),
            openai.BadRequestError,
            400,
            "invalid_request_error",
            "context_length_exceeded",
            "messages",
        ),
        (
            errors.invalid_api_key(),
            openai.AuthenticationError,
            401,
            "invalid_request_error",
            "invalid_api_key",
            None,
        ),
        (
            Unauthenticated("x"),
            openai.AuthenticationError,
            401,
            "invalid_request_error",
            "invalid_api_key",
            None,
        ),
        (
            Forbidden("x"),
            openai.PermissionDeniedError,
            403,
            "permission_error",
            "forbidden",
            None,
        ),
        (
            errors.model_not_found("m"),
            openai.NotFoundError,
            404,
            "invalid_request_error",
            "model_not_found",
            "model",
        ),
        (
            errors.unknown_url("POST", "/v1/x"),
            openai.NotFoundError,
            404,
            "invalid_request_error",
            "unknown_url",
            None,
        ),
        (
            errors.method_not_allowed("PUT", ["GET", "POST"]),
            openai.APIStatusError,
            405,
            "invalid_request_error",
            "method_not_allowed",
            None,
        ),
        (
            errors.body_too_large(1024),
            openai.APIStatusError,
            413,
            "invalid_request_error",
            "body_too_large",
            None,
        ),
        (
            errors.unsupported_media_type(),
            openai.APIStatusError,
            415,
            "invalid_request_error",
            "unsupported_media_type",
            None,
        ),
        (
            limited("requests"),
            openai.RateLimitError,
            429,
            "requests",
            "rate_limit_exceeded",
            None,
        ),
        (limited("tokens"), openai.RateLimitError, 429, "tokens", "rate_limit_exceeded", None),
        (
            spent(RESETS),
            openai.RateLimitError,
            429,
            "insufficient_quota",
            "insufficient_quota",
            None,
        ),
        (
            errors.server_error(),
            openai.InternalServerError,
            500,
            "server_error",
            "server_error",
            None,
        ),
        (
            errors.unavailable(),
            openai.InternalServerError,
            503,
            "server_error",
            "service_unavailable",
            None,
        ),
    ],
)
def test_raise_error_in_the_official_client_keeps_every_field(
    error: PortalError,
    raised: type[openai.APIStatusError],
    status: int,
    type_: str,
    code: str,
    param: str | None,
) -> None:
    assert error.error_status == status
    answer = errors.error_body(error, "req_1")
    headers = [(b"content-type", b"application/json"), *retry_headers(error)]
    with pytest.raises(raised) as caught:
        client(status, answer, headers).models.list()
    assert type(caught.value) is raised
    assert (caught.value.type, caught.value.code, caught.value.param) == (type_, code, param)
    fields = json.loads(answer)
    assert set(fields["error"]) == {"message", "type", "param", "code"}
    assert fields["error"]["message"] == error.message
    assert fields["request_id"] == "req_1"


def test_raise_error_event_in_the_official_client_ends_the_stream() -> None:
    start = ChunkEncoder(completion_id="c", created=1, model="m").content("Hel")
    answer = start + errors.error_event(errors.server_error(), "req_1")
    stream = client(200, answer, [(b"content-type", b"text/event-stream")]).chat.completions.create(
        model="m", messages=[], stream=True
    )
    assert next(stream).choices[0].delta.content == "Hel"
    with pytest.raises(openai.APIError) as caught:
        next(stream)
    assert caught.value.code == "server_error"


def test_name_context_excess_counts_prompt_and_completion() -> None:
    error = errors.context_length_exceeded(context=4096, prompt_tokens=4000, max_tokens=200)
    assert error.message == (
        "This model's maximum context length is 4096 tokens. However, you requested 4200 tokens "
        "(4000 in the messages, 200 in the completion). Please reduce the length of the messages "
        "or completion."
    )


def test_name_context_excess_of_prompt_alone_blames_messages() -> None:
    error = errors.context_length_exceeded(context=4096, prompt_tokens=5000, max_tokens=200)
    assert error.message.endswith(
        "your messages resulted in 5000 tokens. Please reduce the length of the messages."
    )


def test_name_limit_says_whose_how_much_and_until_when() -> None:
    assert limited("requests").message == (
        "Rate limit reached for this API key: 60 requests per minute. "
        "It resets at 2026-01-01T01:00:00+01:00."
    )
    assert spent(RESETS.astimezone(UTC)).message.endswith("It resets at 2026-01-01T00:00:00Z.")
    assert spent(None).message.endswith("Ask your administrator for more.")


def test_name_unknown_model_never_echoes_control_characters() -> None:
    error = errors.model_not_found("a\x1b[31m\n" + "b" * 300)
    assert error.message.isprintable()
    assert len(error.message) < 200
