"""Callers of a portal that is being killed: each notes what it was told, and trusts nothing."""

import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import httpx

WORDS: Final = tuple(f"w{number}" for number in range(97))
"""What the engine says, round and round: of any piece one can tell whether a word is missing."""

_TIMEOUT_S: Final = 30.0
_PAUSE_S: Final = 0.15


@dataclass(slots=True)
class Told:
    """What one caller was told of one call.

    Attributes:
        status: of the answer's head; 0 if none came.
        usage: prompt and completion tokens, where the answer says so.
        finished: whether the answer came to its end.
        left: whether the caller went away on purpose.
    """

    kind: str
    status: int = 0
    job_id: UUID | None = None
    words: list[str] = field(default_factory=list)
    usage: tuple[int, int] | None = None
    finished: bool = False
    left: bool = False

    def take(self, event: dict[str, Any]) -> None:
        """Notes a whole answer, or one event of a stream."""
        if "error" in event:
            return
        self.job_id = UUID(event["id"].removeprefix("chatcmpl-"))
        if event.get("usage"):
            self.usage = event["usage"]["prompt_tokens"], event["usage"]["completion_tokens"]
        for choice in event["choices"]:
            said = choice.get("delta") or choice.get("message") or {}
            self.words += (said.get("content") or "").split()


class Witness(threading.Thread):
    """Calls until it is over; a call that fails is noted, and the next one goes elsewhere."""

    def __init__(
        self, urls: Sequence[str], token: str, model: str, over: threading.Event, seed: int
    ) -> None:
        super().__init__(daemon=True, name=f"{type(self).__name__}-{seed}")
        self._urls = urls
        self._headers = {"Authorization": f"Bearer {token}"}
        self._model = model
        self._over = over
        self.chance = random.Random(seed)

    def run(self) -> None:
        with httpx.Client(headers=self._headers, timeout=_TIMEOUT_S) as http:
            while not self._over.is_set():
                self.act(http)
                self._over.wait(self.chance.uniform(0, 2 * _PAUSE_S))

    def act(self, http: httpx.Client) -> None:
        """One thing that such a caller does."""
        raise NotImplementedError

    def url(self, path: str) -> str:
        """The path on one of the gateways."""
        return f"{self.chance.choice(self._urls)}{path}"

    def body(self) -> dict[str, Any]:
        """A call that nobody else makes."""
        asked = f"go {self.chance.randrange(10**9)}"
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": asked}],
            "max_tokens": self.chance.randint(1, 60),
        }


class Caller(Witness):
    """Calls `/v1/chat/completions`: whole answers, streams, and streams that it leaves."""

    def __init__(self, *context: Any) -> None:
        super().__init__(*context)
        self.told: list[Told] = []

    def act(self, http: httpx.Client) -> None:
        told = Told(self.chance.choice(("whole", "stream", "stream", "left")))
        self.told.append(told)
        try:
            if told.kind == "whole":
                self._whole(http, told)
            else:
                self._stream(http, told)
        except httpx.HTTPError:
            pass  # What came before it is noted.

    def _whole(self, http: httpx.Client, told: Told) -> None:
        answer = http.post(self.url("/v1/chat/completions"), json=self.body())
        told.status = answer.status_code
        if told.status == 200:
            told.take(answer.json())
            told.finished = True

    def _stream(self, http: httpx.Client, told: Told) -> None:
        body = self.body() | {"stream": True, "stream_options": {"include_usage": True}}
        leaves_after = self.chance.randint(0, 20) if told.kind == "left" else None
        with http.stream("POST", self.url("/v1/chat/completions"), json=body) as answer:
            told.status = answer.status_code
            for line in answer.iter_lines() if told.status == 200 else ():
                if line == "data: [DONE]":
                    told.finished = True
                elif line.startswith("data: "):
                    told.take(json.loads(line.removeprefix("data: ")))
                if leaves_after is not None and len(told.words) > leaves_after:
                    told.left = True
                    return


def await_end(witnesses: Sequence[Witness], seconds: float) -> list[str]:
    """Waits for witnesses that have been told to stop; the names of those that hang."""
    deadline = time.monotonic() + seconds
    for witness in witnesses:
        witness.join(max(0.0, deadline - time.monotonic()))
    return [witness.name for witness in witnesses if witness.is_alive()]


def consecutive(words: Sequence[str]) -> bool:
    """Whether the engine can have said just this, without a gap and without a word twice."""
    if not words:
        return True
    if words[0] not in WORDS:
        return False
    begin = WORDS.index(words[0])
    return all(word == WORDS[(begin + n) % len(WORDS)] for n, word in enumerate(words))
