"""The promises of an engine whose tokens come from a server elsewhere.

One thread runs one event loop. Each request is a task on it that reads a stream; the events of a
turn of the loop leave in one ``emit``. A request that fails at the server fails alone: the engine
is dead only when it was told so, or when its events can't be delivered.
"""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import structlog
from tokenizers import Tokenizer

from inference.artefacts import load_manifest
from inference.engines.base import (
    DuplicateRequest,
    Emit,
    EngineBroken,
    EngineClosed,
    EngineStats,
    Event,
    Failed,
    GenerationRequest,
    Message,
    Sampling,
    Token,
)
from inference.engines.remote.answer import Answer, Chunk
from inference.engines.remote.faults import UpstreamFault, failed, refused
from inference.engines.remote.metrics import Load
from inference.engines.remote.options import RemoteOptions
from inference.engines.stepping import log_failure
from portal.core.errors import Invalid, NotFound, Unavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

PROOF = "load"
"""The id of the request that shows that the server serves."""

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 4.0


class RemoteEngine(ABC):
    """An adapter's subclass opens its client and streams one answer; the rest is here.

    Args:
        options: the adapter's own, parsed.
        artefact_dir: an artefact with a tokenizer; it needs no weights.
        context_length: most tokens of prompt and completion together.
        emit: receives the events of each turn of the loop.
    """

    def __init__(
        self, *, options: RemoteOptions, artefact_dir: Path, context_length: int, emit: Emit
    ) -> None:
        self._remote = options
        self._artefact_dir = artefact_dir
        self._context_length = context_length
        self._emit = emit
        self._changed = threading.Condition()
        self._live: set[str] = set()
        self._accepting = False
        self._closing = False
        self._delivering = False
        self._failure: str | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._proof: Future[None] | None = None
        self._tokenizer: Tokenizer
        # Owned by the loop's thread.
        self._tasks: dict[str, asyncio.Task[Event]] = {}
        self._waiting: set[str] = set()  # sent or not, they have no token yet
        self._sent: set[str] = set()
        self._out: list[Event] = []
        self._ended = asyncio.Event()
        self._places = asyncio.Semaphore(options.concurrency)
        self._side: set[asyncio.Task[None]] = set()
        self._generated = 0
        self._load: Load | None = None
        self._healthy: bool | None = None

    # What an adapter provides; all of it runs on the loop.

    @abstractmethod
    async def _open(self) -> None:
        """Make the clients. A PortalError says what is wrong with the options."""

    @abstractmethod
    async def _shut(self) -> None:
        """Close the clients."""

    @abstractmethod
    def _stream(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """The server's answer; an UpstreamFault is how it fails."""

    async def _embed(self, request: GenerationRequest) -> Chunk:
        """The whole answer to a request that embeds or ranks; asks by ``_patiently``."""
        raise refused("This deployment's server generates text: it makes no embeddings.")

    @abstractmethod
    async def _is_healthy(self) -> bool:
        """Whether the server says that it serves."""

    @abstractmethod
    async def _read_load(self) -> Load | None:
        """The server's own figures, or None."""

    async def _abort(self, request_id: str) -> None:  # noqa: B027 - most servers need none
        """Tell the server of a cancellation, where closing the stream is not enough."""

    # The protocol.

    def load(self) -> None:
        """See ``Engine.load``; waits for the server at most ``ready_seconds``."""
        if self._thread is not None:
            raise EngineClosed("This engine was loaded before; make a new one.")
        if self._failure is not None:
            raise EngineBroken(f"The engine could not be loaded: {self._failure}.")
        self._tokenizer = read_tokenizer(self._artefact_dir)
        loop = self._loop = asyncio.new_event_loop()
        self._proof = proof = asyncio.run_coroutine_threadsafe(self._prove(), loop)
        self._thread = threading.Thread(target=self._run, name="engine-remote", daemon=True)
        self._thread.start()
        try:
            proof.result()
        except CancelledError:
            self.close()
            raise self._cut_off() from None
        except BaseException:
            self.close()
            raise
        with self._changed:
            self._accepting = not self._closing and self._failure is None

    def _cut_off(self) -> Exception:
        """Why loading was given up: what serves is gone, or the engine was closed."""
        if self._failure is not None:
            return EngineBroken(f"The engine could not be loaded: {self._failure}.")
        return EngineClosed("The engine was closed while it was loading.")

    def submit(self, request: GenerationRequest) -> None:
        """See ``Engine.submit``."""
        with self._changed:
            if self._failure is not None:
                raise EngineBroken(f"The engine has failed: {self._failure}.")
            if not self._accepting:
                raise EngineClosed("The engine accepts no requests now.")
            if request.id in self._live:
                raise DuplicateRequest(f"Request {request.id} is already being served.")
            self._live.add(request.id)
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._begin, request)

    def cancel(self, request_id: str) -> None:
        """See ``Engine.cancel``."""
        with self._changed:
            if request_id in self._live and self._loop is not None:
                self._loop.call_soon_threadsafe(self._cancel_task, request_id)

    def drain(self, timeout: float | None = None) -> bool:
        """See ``Engine.drain``."""
        with self._changed:
            self._accepting = False
            return self._changed.wait_for(lambda: not self._live and not self._delivering, timeout)

    def stats(self) -> EngineStats:
        """See ``Engine.stats``.

        A request runs from its first token on, or once it is sent to a server that lets none wait.
        The figures of the cache are the server's own, of all its callers.
        """
        load = self._load or Load()
        with self._changed:
            queued = min(len(self._sent & self._waiting), load.waiting)
            running = min(len(self._sent) - queued, len(self._live))
            return EngineStats(
                slots=self._remote.concurrency,
                running=running,
                waiting=len(self._live) - running,
                generated_tokens=self._generated,
                failure=self._failure,
                cache_tokens=load.cache_tokens,
                cached_tokens=load.cached_tokens,
            )

    def close(self) -> None:
        """See ``Engine.close``."""
        with self._changed:
            self._accepting = False
            first, self._closing = not self._closing, True
            loop, thread = self._loop, self._thread
            if first and loop is not None and thread is not None:
                loop.call_soon_threadsafe(self._cancel_all)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def fail(self, reason: str) -> None:
        """What serves is gone for good: every request fails, and none is accepted any more."""
        with self._changed:
            if self._failure is not None or self._closing:
                return
            self._failure = reason
            self._accepting = False
            if self._loop is not None and self._proof is not None:
                self._proof.cancel()
                self._loop.call_soon_threadsafe(self._cancel_requests)

    # The loop.

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._live_on())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    async def _live_on(self) -> None:
        """Keep the loop until the engine is closed and every request has ended."""
        poll = asyncio.create_task(self._poll())
        await self._ended.wait()
        poll.cancel()
        # A task that is cancelled while it connects may leave others behind.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        self._flush()
        await self._shut()

    def _cancel_all(self) -> None:
        self._cancel_requests()
        self._ended.set()

    def _cancel_requests(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    def _cancel_task(self, request_id: str) -> None:
        task = self._tasks.get(request_id)
        if task is not None:
            task.cancel()

    def _begin(self, request: GenerationRequest) -> None:
        task = asyncio.create_task(self._serve(request))
        self._tasks[request.id] = task
        task.add_done_callback(lambda done: self._finish(request, done))
        if self._failure is not None or self._closing:
            task.cancel()

    def _finish(self, request: GenerationRequest, task: asyncio.Task[Event]) -> None:
        del self._tasks[request.id]
        if task.cancelled():  # before its first step
            self._put([self._cancelled(request, None)])
        else:
            self._put([task.result()])

    async def _serve(self, request: GenerationRequest) -> Event:
        """Read one answer to its end; returns the terminal event, whatever happens."""
        answer = Answer(request, self._tokenizer)
        try:
            if request.embedding is None:
                self._refuse(request)
            self._waiting.add(request.id)
            async with self._places:
                self._sent.add(request.id)
                await self._ask(request, answer)
            end: Event | None = None
        except asyncio.CancelledError:
            self._tell_server(request)
            end = self._cancelled(request, answer)
        except UpstreamFault as fault:
            self._put(answer.rest())
            end = Failed(request.id, fault.code, fault.message)
        except Exception as fault:  # noqa: BLE001 - logged, and told to the request
            log_failure(fault)
            self._put(answer.rest())
            end = Failed(request.id, "engine_failed", "The adapter of the engine has failed.")
        finally:
            self._waiting.discard(request.id)
            self._sent.discard(request.id)
        if end is None:
            self._put(answer.rest())
            end = answer.done(answer.reason or "stop")
        return end

    def _cancelled(self, request: GenerationRequest, answer: Answer | None) -> Event:
        answer = answer or Answer(request, self._tokenizer)
        self._put(answer.rest())
        if self._failure is not None:
            return Failed(request.id, "engine_failed", "The engine has failed.")
        return answer.done("cancelled")

    def _tell_server(self, request: GenerationRequest) -> None:
        if request.id in self._sent and not self._closing:
            side = asyncio.create_task(self._abort(request.id))
            self._side.add(side)
            side.add_done_callback(self._side.discard)

    def _refuse(self, request: GenerationRequest) -> None:
        prompt, most = len(request.prompt_ids), request.sampling.max_tokens
        if prompt == 0 or most < 1:
            raise UpstreamFault(
                "invalid_prompt", "A request needs a prompt and at least one token to generate."
            )
        if prompt + most > self._context_length:
            raise UpstreamFault(
                "context_length_exceeded",
                f"{prompt} prompt tokens and {most} completion tokens exceed the context of "
                f"{self._context_length} tokens.",
            )

    async def _ask(self, request: GenerationRequest, answer: Answer) -> None:
        if request.embedding is not None:
            self._put(answer.take(await self._embed(request)))
            return
        await self._patiently(lambda: self._read(request, answer), until=lambda: answer.started)

    async def _patiently(
        self, ask: Callable[[], Awaitable[T]], *, until: Callable[[], bool] = lambda: False
    ) -> T:
        """What ``ask`` gives; a server that is busy is asked again for a while.

        Args:
            until: from when on it is too late for that.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + self._remote.busy_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await ask()
            except UpstreamFault as fault:
                if fault.retry_seconds is None or until():
                    raise
                wait = max(pause, fault.retry_seconds)
                if now() + wait > deadline:
                    raise
                await asyncio.sleep(wait)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _read(self, request: GenerationRequest, answer: Answer) -> None:
        options, loop = self._remote, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(options.first_token_seconds) as limit:
                async with aclosing(self._stream(request)) as chunks:
                    async for chunk in chunks:
                        self._put(answer.take(chunk))
                        if answer.cut:
                            return
                        if answer.started:
                            self._waiting.discard(request.id)
                            limit.reschedule(loop.time() + options.between_tokens_seconds)
        except TimeoutError:
            what = "next" if answer.started else "first"
            if answer.reason is None:
                raise failed(f"The serving engine sent no {what} token in time.") from None
        except UpstreamFault:
            # An answer that has ended is whole, whatever becomes of the connection.
            if answer.reason is None:
                raise
        if answer.reason is None:
            raise failed("The serving engine's stream ended before the answer did.")

    # Out.

    def _put(self, events: list[Event]) -> None:
        """Events of this turn of the loop; they leave together at its end."""
        if not events:
            return
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out += events

    def _flush(self) -> None:
        events = [e for e in self._out if e.request_id != PROOF]
        self._out = []
        # An id is free before its end is told: who hears of the end may use it again.
        ended = {event.request_id for event in events if not isinstance(event, Token)}
        with self._changed:
            self._live -= ended
            self._generated += sum(e.tokens for e in events if isinstance(e, Token))
            self._delivering = True
        try:
            if events:
                self._emit(events)
        except Exception as fault:  # noqa: BLE001 - logged; nothing can be told to anyone
            log_failure(fault)
            self.fail(f"{type(fault).__name__}: {fault}")
        finally:
            with self._changed:
                self._delivering = False
                self._changed.notify_all()

    # Loading and looking after the server.

    async def _prove(self) -> None:
        """Wait for the server, and let it generate one token."""
        await self._open()
        now = asyncio.get_running_loop().time
        deadline = now() + self._remote.ready_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._try_once()
            except UpstreamFault as fault:
                if not fault.away or now() + pause > deadline:
                    raise _unloadable(fault) from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _try_once(self) -> None:
        if not await self._is_healthy():
            raise failed("The serving engine is not ready.", away=True)
        request = self._proving_request()
        if request.embedding is not None:
            await self._embed(request)
            return
        answer = Answer(request, self._tokenizer)
        await self._read(request, answer)
        answer.rest()
        if answer.told < 1:
            raise failed("The serving engine answered without a token.")

    def _proving_request(self) -> GenerationRequest:
        """The request that shows that the server serves."""
        ids = self._tokenizer.encode("Hello", add_special_tokens=False).ids
        return GenerationRequest(
            PROOF, ids, (Message("user", "Hello"),), Sampling(max_tokens=1, temperature=0)
        )

    async def _poll(self) -> None:
        """Read health and metrics now and then; say when the server goes and comes back."""
        if not self._remote.poll_seconds:
            return
        while True:
            await asyncio.sleep(self._remote.poll_seconds)
            healthy = await self._is_healthy()
            self._load = await self._read_load() if healthy else None
            if healthy != self._healthy and (self._healthy is not None or not healthy):
                log.warning("upstream.recovered" if healthy else "upstream.unhealthy")
            self._healthy = healthy


def _unloadable(fault: UpstreamFault) -> Exception:
    if fault.code == "engine_failed":
        return Unavailable(fault.message)
    return Invalid(fault.message, param="options")


def read_tokenizer(artefact_dir: Path) -> Tokenizer:
    """The tokenizer of an artefact, with which texts are counted.

    Raises:
        NotFound, Invalid: no artefact there, or it is damaged.
    """
    load_manifest(artefact_dir)
    path = artefact_dir / "tokenizer.json"
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"The artefact's file {path} is missing.") from None
