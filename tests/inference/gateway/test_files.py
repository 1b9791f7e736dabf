"""``/v1/files`` over a real socket: the official client, hostile uploads, what is kept."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import openai
import psycopg
import pytest

from inference.batches.content import CHUNK_BYTES
from tenants.services import create_api_key
from tests import factories
from tests.factories import Organisation
from tests.live import LivePortal, Programs
from tests.servers import SessionServers

LINE = b'{"custom_id": "a", "secret": "grapefruit"}\n'


@pytest.fixture
def client(live_portal: LivePortal, tenant_a: Organisation) -> Iterator[openai.OpenAI]:
    with official(live_portal, factories.api_key(tenant_a).token) as made:
        yield made


@pytest.fixture
def http(live_portal: LivePortal, tenant_a: Organisation) -> Iterator[httpx.Client]:
    with live_portal.client(factories.api_key(tenant_a).token) as made:
        yield made


def official(portal: LivePortal, token: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{portal.base_url}/v1", api_key=token, max_retries=0)


def upload(client: openai.OpenAI, content: bytes = LINE, **more: Any) -> Any:
    return client.files.create(file=("in.jsonl", content), purpose="batch", **more)


def audited(superuser: psycopg.Connection, tenant: Organisation, action: str) -> list[Any]:
    return superuser.execute(
        "SELECT outcome, reason FROM audit_event WHERE tenant_id = %s AND action = %s "
        "ORDER BY recorded_at, id",
        [tenant.id, action],
    ).fetchall()


def kept(superuser: psycopg.Connection, tenant: Organisation) -> tuple[int, int]:
    """How many chunks and how many file rows a tenant has."""
    row = superuser.execute(
        "SELECT (SELECT count(*) FROM inference_filechunk WHERE tenant_id = %(t)s), "
        "(SELECT count(*) FROM inference_file WHERE tenant_id = %(t)s)",
        {"t": tenant.id},
    ).fetchone()
    assert row is not None
    return row


# -- the official client, unchanged ----------------------------------------------------------


def test_upload_and_download_give_back_the_very_bytes(
    client: openai.OpenAI, tenant_a: Organisation, superuser: psycopg.Connection
) -> None:
    content = LINE * (2 * CHUNK_BYTES // len(LINE) + 10)
    made = upload(client, content)
    assert (made.object, made.bytes, made.purpose) == ("file", len(content), "batch")
    assert (made.filename, made.status) == ("in.jsonl", "processed")
    assert made.expires_at == made.created_at + 30 * 24 * 3600
    assert client.files.content(made.id).read() == content
    assert client.files.retrieve(made.id) == made
    assert kept(superuser, tenant_a) == (3, 1)
    assert audited(superuser, tenant_a, "inference.files.create") == [
        ("requested", ""),
        ("success", ""),
    ]
    assert audited(superuser, tenant_a, "inference.files.download") == [
        ("requested", ""),
        ("success", ""),
    ]


def test_upload_keeps_nothing_in_clear(
    client: openai.OpenAI, tenant_a: Organisation, superuser: psycopg.Connection
) -> None:
    upload(client)
    stored = superuser.execute(
        "SELECT content FROM inference_filechunk WHERE tenant_id = %s", [tenant_a.id]
    ).fetchall()
    assert len(stored) == 1
    assert b"grapefruit" not in stored[0][0]


def test_list_pages_through_files_in_either_order(client: openai.OpenAI) -> None:
    made = [upload(client).id for _ in range(5)]
    assert [f.id for f in client.files.list(limit=2)] == made[::-1]
    assert [f.id for f in client.files.list(order="asc", limit=2)] == made
    assert [f.id for f in client.files.list(purpose="batch_output")] == []
    first = client.files.list(limit=2)
    assert (first.has_more, len(first.data)) == (True, 2)


def test_delete_leaves_no_content_and_no_file(
    client: openai.OpenAI, tenant_a: Organisation, superuser: psycopg.Connection
) -> None:
    made = upload(client)
    assert client.files.delete(made.id).deleted is True
    assert kept(superuser, tenant_a)[0] == 0
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(made.id)
    assert list(client.files.list()) == []


def test_upload_expires_when_its_caller_says(client: openai.OpenAI) -> None:
    made = upload(client, expires_after={"anchor": "created_at", "seconds": 3600})
    assert made.expires_at == made.created_at + 3600
    for wrong in ({"anchor": "created_at", "seconds": 3599}, {"anchor": "now", "seconds": 3600}):
        with pytest.raises(openai.BadRequestError) as refused:
            upload(client, expires_after=wrong)
        assert str(refused.value.param).startswith("expires_after.")


def test_read_another_tenants_file_answers_as_if_there_were_none(
    live_portal: LivePortal, client: openai.OpenAI, tenant_b: Organisation
) -> None:
    made = upload(client)
    nowhere = f"file-{UUID(int=7).hex}"
    with official(live_portal, factories.api_key(tenant_b).token) as other:
        for call in (other.files.retrieve, other.files.content, other.files.delete):
            with pytest.raises(openai.NotFoundError) as theirs:
                call(made.id)
            with pytest.raises(openai.NotFoundError) as none:
                call(nowhere)
            assert theirs.value.body == _named(none.value.body, nowhere, made.id)
        assert list(other.files.list()) == []
    assert client.files.content(made.id).read() == LINE


def test_read_another_persons_file_answers_not_found_and_ones_own_by_any_key(
    live_portal: LivePortal, client: openai.OpenAI, tenant_a: Organisation
) -> None:
    made = upload(client)
    with official(live_portal, factories.api_key(tenant_a).token) as same:
        assert same.files.content(made.id).read() == LINE
    theirs = create_api_key(
        context=tenant_a.developer.context, name="another's", scopes=["inference"]
    )
    with official(live_portal, theirs.token) as other:
        assert list(other.files.list()) == []
        for call in (other.files.retrieve, other.files.content, other.files.delete):
            with pytest.raises(openai.NotFoundError):
                call(made.id)


def _named(body: Any, old: str, new: str) -> Any:
    return {**body, "message": body["message"].replace(old, new)}


# -- hostile uploads -------------------------------------------------------------------------

B = b"--x\r\n"
PURPOSE = B + b'Content-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
FILE = B + b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + LINE + b"\r\n"
END = b"--x--\r\n"
FORM = "multipart/form-data; boundary=x"

HOSTILE: dict[str, tuple[str, bytes, int, str]] = {
    "json": ("application/json", b"{}", 415, "unsupported_media_type"),
    "no content type": ("", PURPOSE + FILE + END, 415, "unsupported_media_type"),
    "no boundary": ("multipart/form-data", PURPOSE + FILE + END, 400, "invalid_multipart"),
    "long boundary": (FORM + "y" * 5000, PURPOSE + FILE + END, 400, "invalid_multipart"),
    "another boundary": (FORM + "y", PURPOSE + FILE + END, 400, "invalid_multipart"),
    "empty body": (FORM, b"", 400, "invalid_multipart"),
    "cut off": (FORM, PURPOSE + FILE, 400, "invalid_multipart"),
    "no file": (FORM, PURPOSE + END, 400, "missing_required_parameter"),
    "no purpose": (FORM, FILE + END, 400, "missing_required_parameter"),
    "two files": (FORM, PURPOSE + FILE + FILE + END, 400, "invalid_value"),
    "purpose twice": (FORM, PURPOSE + PURPOSE + FILE + END, 400, "invalid_multipart"),
    "empty file": (FORM, PURPOSE + FILE.replace(LINE, b"") + END, 400, "empty_file"),
    "other purpose": (
        FORM,
        PURPOSE.replace(b"batch", b"fine-tune") + FILE + END,
        400,
        "unsupported_purpose",
    ),
    "purpose after the file": (
        FORM,
        FILE + PURPOSE.replace(b"batch", b"vision") + END,
        400,
        "unsupported_purpose",
    ),
    "NUL in a field": (FORM, PURPOSE.replace(b"batch", b"ba\0ch") + END, 400, "invalid_multipart"),
    "field not UTF-8": (FORM, PURPOSE.replace(b"batch", b"\xff") + END, 400, "invalid_multipart"),
    "long field": (
        FORM,
        PURPOSE.replace(b"batch", b"b" * 70_000) + FILE + END,
        400,
        "invalid_multipart",
    ),
    "many parts": (FORM, PURPOSE.replace(b"purpose", b"p%d") * 40 + END, 400, "invalid_multipart"),
    "header without end": (FORM, B + b"Content-Disposition: " + b"a" * 9000, 400, ""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_upload_that_is_malformed_is_refused_and_leaves_nothing(
    http: httpx.Client, tenant_a: Organisation, superuser: psycopg.Connection, name: str
) -> None:
    kind, body, status, code = HOSTILE[name]
    answer = http.post("/v1/files", content=body, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    assert not code or answer.json()["error"]["code"] == code
    assert kept(superuser, tenant_a) == (0, 0)
    ends = audited(superuser, tenant_a, "inference.files.create")
    assert ends[-1] == ("failure", answer.json()["error"]["code"])


def test_upload_with_a_hostile_name_is_shown_without_harm(http: httpx.Client) -> None:
    name = b'../../etc/"pass\twd\x7f' + "wörter".encode()
    part = FILE.replace(b'filename="a"', b'filename="' + name.replace(b'"', b'\\"') + b'"')
    answer = http.post(
        "/v1/files", content=PURPOSE + part + END, headers={"content-type": FORM}
    ).json()
    assert "/" not in answer["filename"]
    assert answer["filename"].isprintable()
    content = http.get(f"/v1/files/{answer['id']}/content")
    assert content.content == LINE
    assert content.headers["content-disposition"].isascii()


def test_upload_by_a_stranger_is_refused_before_its_body_is_read(live_portal: LivePortal) -> None:
    with live_portal.client("fh-wrong") as stranger:
        answer = stranger.post("/v1/files", content=FILE, headers={"content-type": FORM})
    assert answer.status_code == 401


def test_read_list_with_wrong_parameters_is_refused(http: httpx.Client) -> None:
    wrong = ("limit=0", "limit=x", "limit=99999999999", "order=up", "after=file-1", "after=%00")
    for query in wrong:
        answer = http.get(f"/v1/files?{query}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


def test_call_with_another_method_is_refused_and_told_which_are_allowed(
    http: httpx.Client,
) -> None:
    answer = http.put("/v1/files")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST, GET"
    assert http.post("/v1/files/file-1").status_code == 405


@pytest.mark.parametrize("name", ["", "x", "file-", "file-" + "g" * 32, "batch_" + "0" * 32])
def test_read_file_by_a_name_that_is_none_answers_not_found(http: httpx.Client, name: str) -> None:
    assert http.get(f"/v1/files/{name or '%20'}").status_code == 404


# -- bounds ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(servers: SessionServers, database: None) -> Iterator[str]:
    """The address of a gateway that takes small files only."""
    programs = Programs(servers)
    try:
        web = programs.web(
            "small-files", FREEHOLD_PLANES="data", MAX_FILE_BYTES="5000", MAX_BODY_BYTES="2000"
        )
        web.wait_alive()
        yield web.url
    finally:
        programs.stop()


@pytest.mark.parametrize("declared", [True, False])
def test_upload_of_too_many_bytes_is_refused_and_leaves_nothing(
    small: str, tenant_a: Organisation, superuser: psycopg.Connection, declared: bool
) -> None:
    whole = PURPOSE + FILE.replace(LINE, LINE * 3000) + END
    pieces = (whole[at : at + 1000] for at in range(0, len(whole), 1000))
    headers = {
        "authorization": f"Bearer {factories.api_key(tenant_a).token}",
        "content-type": FORM,
    }
    answer = httpx.post(
        f"{small}/v1/files", content=whole if declared else pieces, headers=headers, timeout=60
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "file_too_large")
    assert kept(superuser, tenant_a) == (0, 0)
    assert audited(superuser, tenant_a, "inference.files.create")[-1] == (
        "failure",
        "file_too_large",
    )
