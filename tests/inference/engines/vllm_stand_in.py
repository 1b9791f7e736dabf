#!/usr/bin/env python3
"""Stands in for the ``vllm`` command: its arguments, its API, its metrics, and its ways to die.

What it was given is written as JSON to the file that ``VLLM_STAND_IN_SAYS`` names. A prompt that
begins with 13 hangs after one token, one that begins with 66 kills the server.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("command", choices=["serve"])
parser.add_argument("model")
parser.add_argument("--host")
parser.add_argument("--port", type=int)
parser.add_argument("--served-model-name")
parser.add_argument("--max-model-len", type=int)
parser.add_argument("--max-num-seqs", type=int)
parser.add_argument("--tensor-parallel-size", type=int)
parser.add_argument("--gpu-memory-utilization", type=float)
parser.add_argument("--fail", action="store_true")
parser.add_argument("--stubborn", action="store_true")
arguments = parser.parse_args()
KEY = os.environ["VLLM_API_KEY"]
METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0"} 0.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.5
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",num_gpu_blocks="10",engine="0"} 1.0
"""


class Handler(BaseHTTPRequestHandler):
    """vLLM's paths that the adapter uses."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name it has
        pass

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        pages = {"/health": b"", "/metrics": METRICS.encode()}
        self._send(200 if self.path in pages else 404, pages.get(self.path, b""))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers.get("authorization") != f"Bearer {KEY}":
            return self._send(401, b'{"error": "Unauthorized"}')
        if self.path == "/v1/embeddings":
            data = [{"index": n, "embedding": [0, 1, 0, 0]} for n in range(len(body["input"]))]
            return self._send(200, json.dumps({"data": data}).encode())
        if self.path != "/v1/completions" or body["model"] != arguments.served_model_name:
            return self._send(404, b"")
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        count = body["max_tokens"]
        for n in range(count):
            last = n == count - 1
            self._event(f"w{n} ", "length" if last else None, n + 1, len(body["prompt"]))
            if body["prompt"][0] == 66:
                os.kill(os.getpid(), signal.SIGKILL)
            if body["prompt"][0] == 13:
                time.sleep(3600)
        self.wfile.write(b"data: [DONE]\n\n")
        return None

    def _event(self, text: str, reason: str | None, done: int, prompt: int) -> None:
        event = {
            "choices": [{"index": 0, "text": text, "finish_reason": reason, "stop_reason": None}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": done},
        }
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()


sys.stdout.write("Loading safetensors checkpoint shards:  50% Completed | 1/2\n")
sys.stdout.flush()
if arguments.fail:
    sys.exit("ValueError: the model has no such head")
if arguments.stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
# vLLM's engine core is a process of its own.
core = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
says = os.environ.get("VLLM_STAND_IN_SAYS")
if says:
    with open(says, "w") as file:  # noqa: PTH123
        pids = {"server": os.getpid(), "core": core.pid}
        json.dump({"arguments": vars(arguments), "env": dict(os.environ), "pids": pids}, file)
server = ThreadingHTTPServer((arguments.host, arguments.port), Handler)
server.daemon_threads = True
server.serve_forever()
