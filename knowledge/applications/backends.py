"""The one seam between an app and where it runs: a backend is asked, and answers in events."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from knowledge.applications.spec import AppSpec, InputValue
from knowledge.applications.template import QUERY, fill
from knowledge.models import AppMode
from knowledge.retrieval import MOST_QUERY_CHARS
from portal.core.actors import Context


@dataclass(frozen=True, slots=True)
class Turn:
    """A question of earlier in the conversation, and its answer."""

    query: str
    answer: str


@dataclass(frozen=True, slots=True)
class AppCall:
    """What a caller asks of an app; everything that a backend needs to answer it.

    Attributes:
        context: of the caller's API key, which is charged.
        session: the caller's browser session was proved, as a playground's key needs it.
        query: what is asked; empty in a run.
        inputs: checked, by name.
        end_user: the caller's own name for its user.
        history: the conversation so far, oldest first.
        conversation_id, message_id: the portal's ids.
        remote_conversation_id: what the backend called the conversation before; empty if it is
            new to it.
    """

    context: Context
    app_id: UUID
    slug: str
    mode: AppMode
    version: int
    spec: AppSpec
    conversation_id: UUID
    message_id: UUID
    query: str = ""
    inputs: Mapping[str, InputValue] = field(default_factory=dict)
    end_user: str = ""
    history: Sequence[Turn] = ()
    remote_conversation_id: str = ""
    session: bool = False

    @property
    def values(self) -> dict[str, str]:
        """What the places of its templates are filled with, but for the passages."""
        empty = {one.name: "" for one in self.spec.inputs}
        given = {name: _text(value) for name, value in self.inputs.items()}
        return empty | given | {QUERY: self.query}

    @property
    def search(self) -> str:
        """What knowledge bases are asked; empty where there are none."""
        if not self.spec.knowledge:
            return ""
        return fill(self.spec.search, self.values)[:MOST_QUERY_CHARS].strip()


def _text(value: InputValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class Source:
    """A passage that the model was shown; ``score`` is from 0 to 1."""

    document: str
    text: str
    score: float
    knowledge_base_id: str = ""
    document_id: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True)
class Began:
    """The backend has taken the call; always its first event.

    Attributes:
        job_id: the job that answers, where the portal generates itself.
        remote_conversation_id, remote_message_id: what another backend calls them.
    """

    job_id: UUID | None = None
    remote_conversation_id: str = ""
    remote_message_id: str = ""


@dataclass(frozen=True, slots=True)
class Sources:
    """What was found for the answer.

    Attributes:
        left_out: passages that were found and had no room in the model's context.
        degraded: what could not be asked on the way, in a sentence; else empty.
    """

    sources: Sequence[Source]
    left_out: int = 0
    degraded: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is whole; always the last event.

    Attributes:
        reason: ``stop``, ``length``, or ``stopped`` where the caller stopped it.
    """

    reason: str
    prompt_tokens: int
    completion_tokens: int


AppEvent = Began | Sources | Delta | Ended


@dataclass(frozen=True, slots=True)
class AnsweredMessage:
    """An earlier message, as its backend is reminded of it."""

    app_id: UUID
    conversation_id: UUID
    message_id: UUID
    end_user: str
    job_id: UUID | None
    remote_conversation_id: str
    remote_message_id: str


class Backend(Protocol):
    """Where apps run. Its methods are awaited outside any scope and any transaction."""

    def answer(self, call: AppCall) -> AsyncGenerator[AppEvent, None]:
        """Answers a call: ``Began``, then ``Sources``, ``Delta`` and, at last, ``Ended``.

        Closing the iterator ends the work, wherever it runs.

        Raises:
            PortalError: while the first event is awaited, a refusal, after which nothing is left
                of the call; later, a failure of what was begun.
        """
        ...

    async def stop(self, context: Context, message: AnsweredMessage) -> None:
        """Ends the answer to a message, which another process may be streaming."""
        ...

    async def rate(
        self, context: Context, message: AnsweredMessage, rating: int, comment: str
    ) -> None:
        """Hears how an answer was liked: 1, -1, or 0 for a rating that is taken back."""
        ...

    async def forget(self, context: Context, remote_conversation_id: str) -> None:
        """Forgets a conversation, whose messages the portal has deleted."""
        ...


def usage_json(ended: Ended) -> dict[str, int]:
    """The tokens of an answer, as the app gateway tells them."""
    return {
        "prompt_tokens": ended.prompt_tokens,
        "completion_tokens": ended.completion_tokens,
        "total_tokens": ended.prompt_tokens + ended.completion_tokens,
    }
