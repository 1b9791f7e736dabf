"""What the way through the portal costs: Celery, broker, gateway and PostgreSQL."""

import asyncio
import http.client
import json
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg

from benchmarks.lib.engines.prompts import PROMPT_TOKENS, prompt_texts
from benchmarks.lib.engines.serving import CLOCK, MODEL
from benchmarks.lib.portal import Portal

_STREAM_TOKENS: Final = 200
_STREAMS: Final = 5
_CANCELS: Final = 20
_READ_BEFORE_CANCEL: Final = 11
_ENDED: Final = (
    "SELECT finished_at FROM inference_job WHERE request_id = %s AND finished_at IS NOT NULL"
)
_PATIENCE_S: Final = 10.0


class Way:
    """Calls a portal that serves ``engines-model`` and ``engines-clock``."""

    def __init__(self, portal: Portal, artefact: Path) -> None:
        self._portal = portal
        self._artefact = artefact
        portal.run(["-m", "benchmarks.lib.engines.serving", str(artefact)])
        for name in (MODEL, CLOCK):
            portal.add_worker(f"worker of {name}", name)
        portal.await_ready()

    def rate(self, *, concurrency: int, requests: int, tokens: int) -> float:
        """Completion tokens a second of whole answers, by their usage."""
        begun = time.perf_counter()
        made = asyncio.run(self._answers(concurrency, requests, tokens))
        return made / (time.perf_counter() - begun)

    async def _answers(self, concurrency: int, requests: int, tokens: int) -> int:
        turn = asyncio.Semaphore(concurrency)
        base = f"http://{self._portal.host}:{self._portal.port}"
        headers = {"Authorization": f"Bearer {self._portal.keys[0]}"}
        async with httpx.AsyncClient(base_url=base, headers=headers, timeout=300) as client:

            async def ask(prompt: str) -> int:
                async with turn:
                    # No template around it: the engine reads what it reads alone.
                    body = {"model": MODEL, "prompt": prompt, **_exactly(tokens)}
                    answer = await client.post("/v1/completions", json=body)
                    usage = answer.raise_for_status().json()["usage"]
                    if usage["prompt_tokens"] != PROMPT_TOKENS:
                        raise SystemExit(f"A prompt became {usage['prompt_tokens']} tokens.")
                    return int(usage["completion_tokens"])

            texts = prompt_texts(self._artefact, requests)
            return sum(await asyncio.gather(*map(ask, texts)))

    def hop_p50_ms(self) -> float:
        """From the moment the engine makes a token until its client has read it; the median."""
        hops = []
        for _ in range(_STREAMS):
            connection, response = self._stream()
            hops += [(time.monotonic_ns() - int(text)) / 1e6 for text in self._texts(response)]
            connection.close()
        return statistics.median(hops)

    def cancel_ms(self) -> float:
        """From the moment a client hangs up until its job has ended; the median."""
        took = []
        with psycopg.connect(self._portal.database_url("superuser"), autocommit=True) as database:
            for _ in range(_CANCELS):
                connection, response = self._stream()
                texts = self._texts(response)
                for _ in range(_READ_BEFORE_CANCEL):
                    next(texts)
                response.close()
                connection.close()
                left = datetime.now(UTC)
                ended = self._ended(database, response.headers["x-request-id"])
                took.append((ended - left).total_seconds() * 1e3)
        return statistics.median(took)

    def _ended(self, database: psycopg.Connection[Any], request_id: str) -> datetime:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            row = database.execute(_ENDED, [request_id]).fetchone()
            if row is not None:
                ended: datetime = row[0]
                return ended
            time.sleep(0.002)
        raise SystemExit(f"The job of {request_id} did not end after its client had hung up.")

    def _stream(self) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._portal.host, self._portal.port, timeout=60)
        body = {
            "model": CLOCK,
            "messages": [{"role": "user", "content": "the time"}],
            "stream": True,
            **_exactly(_STREAM_TOKENS),
        }
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body),
            {
                "Authorization": f"Bearer {self._portal.keys[0]}",
                "Content-Type": "application/json",
            },
        )
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"The portal answered {response.status}: {response.read()[:300]!r}")
        return connection, response

    @staticmethod
    def _texts(response: http.client.HTTPResponse) -> Any:
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            for choice in json.loads(line[6:])["choices"]:
                yield from str(choice["delta"].get("content") or "").split()


def _exactly(tokens: int) -> dict[str, Any]:
    return {"max_tokens": tokens, "min_tokens": tokens, "temperature": 0}
