"""What the answers of Dify's apps hold that the portal reads; all else in them is passed over."""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

Rating = Literal["like", "dislike"]
Mode = Literal["chat", "advanced-chat", "workflow"]

SUCCEEDED: Final = "succeeded"


class Usage(msgspec.Struct, frozen=True):
    """The tokens of a chat's answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class Source(msgspec.Struct, frozen=True):
    """A passage that an answer rests on.

    Attributes:
        segment_id: null where the passage came of an external knowledge base, whose
            ``document_id`` is the source's own.
    """

    position: int
    dataset_id: str
    dataset_name: str | None
    document_id: str | None
    document_name: str | None
    content: str
    score: float | None = None
    segment_id: str | None = None


class ChatMetadata(msgspec.Struct, frozen=True):
    usage: Usage = Usage()
    retriever_resources: list[Source] = []


class ChatAnswer(msgspec.Struct, frozen=True):
    """The answer of a chat that came in one piece."""

    task_id: str
    message_id: str
    conversation_id: str
    mode: str
    answer: str
    metadata: ChatMetadata


class RunData(msgspec.Struct, frozen=True):
    """What an event of a workflow tells; of a node that ended, too.

    Attributes:
        text: of ``text_chunk``.
        node_type: of ``node_finished``.
        status: succeeded, failed, stopped or partial-succeeded, of ``workflow_finished``.
        total_tokens: all that a workflow tells of its usage.
    """

    id: str = ""
    text: str = ""
    node_type: str = ""
    status: str = ""
    outputs: Mapping[str, Any] | None = None
    error: str | None = None
    total_tokens: int = 0

    @property
    def succeeded(self) -> bool:
        return self.status == SUCCEEDED


class RunAnswer(msgspec.Struct, frozen=True):
    """The answer of a workflow that came in one piece; one that failed does, too."""

    task_id: str
    workflow_run_id: str
    data: RunData


class AppEvent(msgspec.Struct, frozen=True):
    """One event of a streamed answer, whichever: what it has not is empty.

    Attributes:
        event: ``message`` and ``message_end`` of a chat; ``workflow_started``, ``text_chunk`` and
            ``workflow_finished`` of a workflow; the last and those of nodes in a chatflow, too;
            ``message_replace``; ``error``; and others that newer versions may send.
        answer: the next piece of a ``message``; the whole of a ``message_replace``.
        code: Dify's code of an ``error``.
    """

    event: str
    task_id: str = ""
    message_id: str = ""
    conversation_id: str = ""
    workflow_run_id: str = ""
    answer: str = ""
    metadata: ChatMetadata | None = None
    data: RunData | None = None
    code: str = ""


class Message(msgspec.Struct, frozen=True):
    """A question of a conversation and its answer."""

    id: str
    conversation_id: str
    query: str
    answer: str
    created_at: int
    status: str
    retriever_resources: list[Source] = []


class Conversation(msgspec.Struct, frozen=True):
    """Dify names one by its first question."""

    id: str
    name: str
    created_at: int
    updated_at: int


class CursorPage(msgspec.Struct, frozen=True):
    """What is common to lists that go on behind a last id, newest first."""

    has_more: bool
    limit: int


class Conversations(CursorPage, frozen=True):
    data: list[Conversation]


class Messages(CursorPage, frozen=True):
    data: list[Message]


class Done(msgspec.Struct, frozen=True):
    result: Literal["success"]


class AppInfo(msgspec.Struct, frozen=True):
    """Which app a key opens."""

    name: str
    mode: str
    description: str


class Enabled(msgspec.Struct, frozen=True):
    enabled: bool


class AppParameters(msgspec.Struct, frozen=True):
    """What an app says of itself to whoever shows it.

    Attributes:
        user_input_form: one mapping for each input, its kind the only key.
    """

    opening_statement: str
    suggested_questions: list[str]
    user_input_form: list[Mapping[str, Mapping[str, Any]]]
    retriever_resource: Enabled
