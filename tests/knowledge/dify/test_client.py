"""The client against a Dify in trouble: each fault has its type, and no key gets out."""

import logging
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from knowledge.dify import channel, errors
from knowledge.dify.channel import Endpoint, Upload
from knowledge.dify.client import Dify
from knowledge.dify.shapes import RetrievalModel
from portal.core.errors import PortalError
from portal.core.outgoing import Targets, authorities
from tests.certificates import certificate
from tests.knowledge.dify.double import DifyDouble

KEYWORD = RetrievalModel("keyword_search", False, 3, False)


def listed(endpoint: Endpoint, **options: Any) -> Any:
    with Dify(endpoint, **options) as client:
        return client.knowledge.list_datasets()


@pytest.mark.parametrize(
    ("kind", "error", "retryable"),
    [
        ("failed", errors.Failed, True),
        ("bad_gateway", errors.Down, True),
        ("busy", errors.Busy, True),
        ("drop", errors.BrokenOff, True),
        ("html_404", errors.NoRoute, False),
        ("redirect", errors.Redirected, False),
        ("nonsense", errors.UnexpectedAnswer, False),
        ("endless", errors.TooLarge, False),
        ("denied", errors.Denied, False),
    ],
)
def test_call_that_goes_wrong_raises_the_fault_of_its_kind(
    dify: DifyDouble,
    endpoint: Endpoint,
    kind: Any,
    error: type[errors.DifyFault],
    retryable: bool,
) -> None:
    dify.fail(kind)
    with pytest.raises(errors.DifyFault) as raised:
        listed(endpoint)
    assert type(raised.value) is error
    assert raised.value.retryable is retryable
    # What Dify says in words never gets on.
    assert "secret words" not in repr(raised.value)
    assert listed(endpoint).data == []


def test_call_without_an_answer_in_time_is_given_up(dify: DifyDouble, endpoint: Endpoint) -> None:
    dify.fail("hang")
    with pytest.raises(errors.TimedOut):
        listed(endpoint, call_seconds=0.2)


def test_answer_that_never_ends_is_given_up() -> None:
    """One byte at a time never trips the silence between two bytes."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
                try:
                    while not over.wait(0.02):
                        connection.sendall(b" ")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(errors.TimedOut):
                url = f"http://127.0.0.1:{server.getsockname()[1]}"
                listed(Endpoint(url, "w", "c", "d"), call_seconds=0.3)
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("7", 7, 7), ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0), ("999999", 3600, 3600)],
)
def test_call_that_is_one_too_many_says_when_to_come_back(
    dify: DifyDouble, endpoint: Endpoint, text: str, least: float, most: float
) -> None:
    dify.fail("busy", retry_after=text)
    with pytest.raises(errors.Busy) as raised:
        listed(endpoint)
    assert raised.value.retry_after is not None
    assert least <= raised.value.retry_after <= most


@pytest.mark.parametrize("text", ["", "soon"])
def test_call_that_is_one_too_many_without_a_time_has_none(
    dify: DifyDouble, endpoint: Endpoint, text: str
) -> None:
    dify.fail("busy", retry_after=text)
    with pytest.raises(errors.Busy) as raised:
        listed(endpoint)
    assert raised.value.retry_after is None


def test_refusals_are_told_apart_by_code_and_never_by_words(
    dify: DifyDouble, endpoint: Endpoint
) -> None:
    with Dify(endpoint) as client:
        client.knowledge.create_dataset("HR")
        second = client.knowledge.create_dataset("Second")
        with pytest.raises(errors.NameTaken) as taken:
            client.knowledge.create_dataset("HR")
        assert taken.value.remote_code == "dataset_name_duplicate"
        with pytest.raises(errors.Refused) as refused:
            client.knowledge.update_dataset(second.id, name="HR")
        assert (refused.value.remote_status, refused.value.remote_code) == (400, "invalid_param")
        with pytest.raises(errors.Refused):
            client.knowledge.create_dataset("x" * 41)
        with pytest.raises(errors.Missing):
            client.knowledge.get_dataset("not-a-uuid")
        dify.own.keys *= 10
        with pytest.raises(errors.Refused) as most:
            client.console.create_dataset_key()
        assert most.value.remote_code == "max_keys_exceeded"


def test_wrong_keys_and_workspaces_are_refused(dify: DifyDouble, endpoint: Endpoint) -> None:
    with pytest.raises(errors.KeyRefused):
        listed(replace(endpoint, dataset_key="dataset-wrong"))
    for wrong in (
        replace(endpoint, console_key="wrong"),
        replace(endpoint, workspace_id="00000000-0000-4000-8000-000000000000"),
    ):
        with Dify(wrong) as client, pytest.raises(errors.KeyRefused):
            client.console.workspaces()


def test_version_is_kept_of_every_answer(dify: DifyDouble, endpoint: Endpoint) -> None:
    with Dify(endpoint) as client:
        assert client.version == ""
        client.knowledge.list_datasets()
        assert client.version == "1.16.0"
        dify.version = "1.17.0"
        with pytest.raises(errors.Missing):
            client.knowledge.get_dataset("00000000-0000-4000-8000-000000000000")
        assert client.version == "1.17.0"


def test_file_is_updated_by_the_older_call_where_the_newer_is_not_offered(
    dify: DifyDouble, endpoint: Endpoint
) -> None:
    dify.without.add(("PATCH", r"/documents/[0-9a-f-]{36}"))
    with Dify(endpoint) as client:
        made = client.knowledge.create_dataset("HR")
        upload = Upload("a.md", b"one", "text/markdown")
        first = client.knowledge.create_document_by_file(
            made.id, upload, indexing_technique="economy"
        )
        while not client.knowledge.indexing_status(made.id, first.batch)[0].indexed:
            pass
        client.knowledge.update_document_by_file(
            made.id, first.document.id, Upload("a.md", b"two", "text/markdown")
        )
    assert dify.document("HR", "a.md").content == b"two"


def test_segments_that_dify_lost_are_seen_though_it_says_completed(
    dify: DifyDouble, endpoint: Endpoint
) -> None:
    """The first two documents of a new knowledge base, handed in together."""
    with Dify(endpoint) as client:
        api = client.knowledge
        made = api.create_dataset("HR")
        first, second = (
            api.create_document_by_text(
                made.id, name=name, text="Vacation: two days.", indexing_technique="economy"
            )
            for name in ("a", "b")
        )
        status = api.indexing_status(made.id, second.batch)[0]
        assert (status.indexed, status.lost) == (False, False)
        status = api.indexing_status(made.id, second.batch)[0]
        assert (status.indexing_status, status.indexed, status.lost) == ("completed", False, True)
        assert api.indexing_status(made.id, first.batch)[0].indexed
        assert {h.segment.document.name for h in api.retrieve(made.id, "Vacation", KEYWORD)} == {
            "a"
        }
        again = api.update_document_by_text(
            made.id, second.document.id, name="b", text="Vacation: three days."
        )
        while not api.indexing_status(made.id, again.batch)[0].indexed:
            pass
        assert len(api.retrieve(made.id, "Vacation", KEYWORD)) == 2


def test_answer_that_is_lost_does_not_undo_what_was_done(
    dify: DifyDouble, endpoint: Endpoint
) -> None:
    with Dify(endpoint) as client:
        dify.fail("done_then_drop", method="POST", path="/datasets$")
        with pytest.raises(errors.BrokenOff):
            client.knowledge.create_dataset("HR")
        assert [found.name for found in client.knowledge.datasets()] == ["HR"]


def test_datasets_are_read_page_by_page(dify: DifyDouble, endpoint: Endpoint) -> None:
    with Dify(endpoint) as client:
        for number in range(103):
            client.knowledge.create_dataset(f"kb {number}")
        dify.seen.clear()
        assert len({found.id for found in client.knowledge.datasets()}) == 103
    assert len(dify.seen) == 2


def test_keys_are_in_no_repr_and_in_no_log(
    dify: DifyDouble, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Dify(endpoint) as client:
        keys = client.console.dataset_keys()
        client.knowledge.list_datasets()
        with pytest.raises(errors.DifyFault) as raised:
            dify.fail("failed")
            client.console.dataset_keys()
    assert keys[0].token == endpoint.dataset_key
    told = f"{endpoint!r} {keys!r} {client.console!r} {raised.getrepr(showlocals=False)}"
    told += caplog.text
    for secret in (endpoint.dataset_key, endpoint.console_key):
        assert secret not in told


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "http://10.0.0.1", "http://[fe80::1]"])
def test_address_that_the_operator_does_not_allow_is_never_called(url: str) -> None:
    with pytest.raises(errors.AddressNotAllowed):
        listed(Endpoint(url, "w", "c", "d"))


def test_name_that_points_elsewhere_since_is_never_called(
    dify: DifyDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "dify_targets", lambda: Targets.parse("10.0.0.0/8"))
    with pytest.raises(errors.AddressNotAllowed):
        listed(Endpoint(f"http://localhost:{dify.port}", "w", "c", "d"))
    assert dify.seen == []


def test_name_that_nobody_knows_is_said_so() -> None:
    with pytest.raises(errors.HostUnknown):
        listed(Endpoint("http://dify.invalid", "w", "c", "d"))


def test_port_where_nobody_listens_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(errors.Unreachable):
        listed(Endpoint(f"http://127.0.0.1:{port}", "w", "c", "d"))


def test_certificate_is_checked_against_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, authority = certificate(tmp_path, "localhost")
    with DifyDouble(tls=server) as dify:

        def at(host: str) -> Endpoint:
            url = f"https://{host}:{dify.port}"
            return Endpoint(url, dify.own.id, dify.console_key, dify.dataset_key)

        with pytest.raises(errors.CertificateRefused):
            listed(at("localhost"))
        trusting = authorities(authority)
        monkeypatch.setattr(channel, "dify_tls", lambda: trusting)
        assert listed(at("localhost")).data == []
        with pytest.raises(errors.CertificateRefused):
            listed(at("127.0.0.1"))


def test_server_that_is_no_dify_is_said_so() -> None:
    with DifyDouble() as other:
        other.version = ""
        with pytest.raises(errors.NotDify):
            listed(Endpoint(other.url, other.own.id, other.console_key, other.dataset_key))


def test_every_fault_says_what_it_is_in_a_sentence() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    faults = [kind for kind in kinds if issubclass(kind, errors.DifyFault)]
    assert len({kind.code for kind in faults}) == len(faults) > 15
    for kind in faults:
        fault: PortalError = kind()
        assert fault.message.endswith(".")
