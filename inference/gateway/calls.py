"""A call on its way through the gateway."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec.structs import replace

from inference.gateway.admission import Admitted, Call
from inference.gateway.catalogue import Served
from inference.payloads import Prompt

CHAT: Final = "inference.chat"
LIST_MODELS: Final = "inference.models"
UNKNOWN_ROUTE: Final = "inference.unknown_route"


class Origin(msgspec.Struct, frozen=True):
    """Where a call came from, and by which ids it is known."""

    request_id: str
    client_request_id: str | None
    address: str | None


class Generation(msgspec.Struct, frozen=True):
    """What an admitted call will run: the job's columns and its prompt."""

    served: Served
    prompt: Prompt
    max_tokens: int
    stream: bool
    parameters: dict[str, Any]


class Pending(msgspec.Struct, frozen=True):
    """One call in admission's batch.

    ``options`` holds, of a call that has a choice, what it would run on each deployment.
    """

    action: str
    origin: Origin
    call: Call
    arrived_at: datetime
    generation: Generation | None = None
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
