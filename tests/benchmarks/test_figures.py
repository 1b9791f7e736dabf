"""What the benchmark says: processor time, the books, the names of its figures."""

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from benchmarks.lib.audit import Books
from benchmarks.lib.comparison import Figures, Measured, Peer, Series
from benchmarks.lib.load import Result
from benchmarks.lib.processes import trees_cpu
from benchmarks.lib.report import figures_json

GOOD = Books(5, 0, 5, 50, 5, 50, 9, 5, 50, 9, 0, 5, 5, 0)
KEYS = {
    "c1_p50_ms",
    "c32_rps",
    "c32_p99_ms",
    "c32_cpu_ms",
    "c32_vs_limit",
    "sse_tokens_per_s",
    "sse_ttft_p50_ms",
}


def series(requests: int, tokens: int = 0) -> Series:
    result = Result(requests, 0, 2.0, 3.0, 9.0, 0.1, tokens, 5.0, 6.0)
    return Series("x", [Measured(result, {"web": 1.0, "worker": 0.5})])


def figures(*, peer: bool) -> Figures:
    own = {1: series(100), 32: series(1000), 128: series(2000)}
    peers = {1: series(20), 32: series(100)} if peer else {}
    return Figures(own, series(10, 640), peers, None, [1000.0], GOOD, [])


def test_trees_cpu_of_a_busy_process_grows() -> None:
    before = trees_cpu({"me": os.getpid()})["me"]
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass

    assert trees_cpu({"me": os.getpid()})["me"] >= before + 0.03


def test_figures_of_a_run_have_the_promised_names_and_values() -> None:
    told = figures_json(figures(peer=False))

    assert set(told) == KEYS
    assert told["c32_rps"] == 500
    assert told["c32_cpu_ms"] == 1.5
    assert told["c32_vs_limit"] == 0.5
    assert told["sse_tokens_per_s"] == 320


def test_figures_of_a_run_against_a_peer_add_the_ratios() -> None:
    told = figures_json(figures(peer=True))

    assert set(told) == KEYS | {"c1_vs_peer", "c32_vs_peer"}
    assert (told["c1_vs_peer"], told["c32_vs_peer"]) == (5, 10)


def test_books_that_agree_have_no_faults() -> None:
    assert GOOD.faults() == []


@pytest.mark.parametrize("field", range(14))
def test_books_that_differ_anywhere_name_a_fault(field: int) -> None:
    values = [5, 0, 5, 50, 5, 50, 9, 5, 50, 9, 0, 5, 5, 0]
    values[field] += 1

    assert Books(*values).faults()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://127.0.0.1:4000", "/v1/chat/completions"),
        ("http://127.0.0.1:4000/v1/", "/v1/chat/completions"),
        ("127.0.0.1:4000/api", "/api/v1/chat/completions"),
    ],
)
def test_peer_of_a_url_asks_its_chat_completions(url: str, path: str) -> None:
    peer = Peer.of(url, "k", "m")

    assert (peer.host, peer.port, peer.path) == ("127.0.0.1", 4000, path)


def test_peer_of_an_https_url_is_refused() -> None:
    with pytest.raises(SystemExit):
        Peer.of("https://example.test", "k", "m")


def test_peer_that_refuses_ends_the_run_with_what_it_said() -> None:
    class Refuse(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(401)
            self.send_header("content-length", "9")
            self.end_headers()
            self.wfile.write(b"wrong key")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            peer = Peer.of(f"http://127.0.0.1:{server.server_port}", "k", "m")
            with pytest.raises(SystemExit, match="does not answer with a completion: .*401"):
                peer.require_answer()
        finally:
            server.shutdown()
            thread.join()
