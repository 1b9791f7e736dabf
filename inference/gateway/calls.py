"""A call on its way through the gateway."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum, auto
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec.structs import replace

from inference.gateway.admission import Admitted, Call
from inference.gateway.catalogue import Served
from inference.gateway.parsing.reading import Reading
from inference.payloads import Prompt

# What follows "inference." is the kind of the jobs, at most 16 characters.
CHAT: Final = "inference.chat"
JOB: Final = "inference.job"
APP: Final = "inference.app"
COMPLETION: Final = "inference.completion"
RESPONSE: Final = "inference.response"
MESSAGE: Final = "inference.message"
EMBEDDING: Final = "inference.embedding"
RERANK: Final = "inference.rerank"
COUNT_TOKENS: Final = "inference.count_tokens"
LIST_MODELS: Final = "inference.models"
UNKNOWN_ROUTE: Final = "inference.unknown_route"
CREATE_FILE: Final = "inference.files.create"
LIST_FILES: Final = "inference.files.list"
READ_FILE: Final = "inference.files.read"
DOWNLOAD_FILE: Final = "inference.files.download"
DELETE_FILE: Final = "inference.files.delete"
CREATE_BATCH: Final = "inference.batches.create"
LIST_BATCHES: Final = "inference.batches.list"
READ_BATCH: Final = "inference.batches.read"
CANCEL_BATCH: Final = "inference.batches.cancel"


class Part(Enum):
    """How much of a call that needs no model is told of: all of it, its beginning or its end."""

    WHOLE = auto()
    BEGINNING = auto()
    END = auto()


class Origin(msgspec.Struct, frozen=True):
    """Where a call came from, and by which ids it is known."""

    request_id: str
    client_request_id: str | None
    address: str | None


class Generation(msgspec.Struct, frozen=True):
    """What an admitted call will run: the job's columns and its prompt.

    ``reading`` is how its answer is read; None for one that is no more than its text.
    """

    served: Served
    prompt: Prompt
    max_tokens: int
    stream: bool
    parameters: dict[str, Any]
    reading: Reading | None = None


class Pending(msgspec.Struct, frozen=True):
    """One call in admission's batch.

    ``detail`` is what the trail is to say of how a call without a generation ended. ``options``
    holds, of a call that has a choice, what it would run on each deployment.
    """

    action: str
    origin: Origin
    call: Call
    arrived_at: datetime
    generation: Generation | None = None
    part: Part = Part.WHOLE
    detail: dict[str, Any] | None = None
    options: Mapping[UUID, Generation] | None = None

    def served_by(self, verdict: Admitted) -> "Pending":
        """The call with what was chosen for it."""
        ask, choice = verdict.ask, self.call.choice
        if ask is None or choice is None or self.options is None:
            return self
        generation = self.options[ask.deployment_id]
        if choice.meaning.name != ask.model_name:
            parameters = {**generation.parameters, "route": choice.meaning.name}
            generation = replace(generation, parameters=parameters)
        return replace(self, call=replace(self.call, ask=ask), generation=generation)
