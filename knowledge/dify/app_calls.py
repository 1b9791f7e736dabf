"""The calls of Dify's service API for apps: what each sends, and what comes back.

``user`` stands for who asks: conversations are its own, and another's answers ``Missing``. The
calls are data, carried by ``AppApi`` or, on an event loop, by ``AsyncAppApi``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Self, TypeVar

from knowledge.dify import app_shapes as shapes

T = TypeVar("T")

MOST_LISTED: Final = 100


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call.

    Attributes:
        path: behind ``/v1``, with a leading slash.
        shape: of the answer; None where there is no body.
    """

    method: str
    path: str
    shape: type[T]
    params: Mapping[str, Any] | None = None
    json: Mapping[str, Any] | None = None

    def streamed(self) -> Self:
        """The same, answered by events."""
        return replace(self, json={**(self.json or {}), "response_mode": "streaming"})


# -- asking ------------------------------------------------------------------------------------


def chat(
    *, query: str, user: str, inputs: Mapping[str, Any] | None = None, conversation_id: str = ""
) -> Call[shapes.ChatAnswer]:
    """Asks a chat app or a chatflow; without a conversation it begins one.

    A chatflow whose run fails is ``Refused``; streamed, it answers 200 and tells it in
    ``workflow_finished``.
    """
    body = _asked(user, inputs) | {"query": query}
    if conversation_id:
        body["conversation_id"] = conversation_id
    return Call("POST", "/chat-messages", shapes.ChatAnswer, json=body)


def run(*, inputs: Mapping[str, Any], user: str) -> Call[shapes.RunAnswer]:
    """Runs a workflow; its ``data.status`` says whether it succeeded."""
    return Call("POST", "/workflows/run", shapes.RunAnswer, json=_asked(user, inputs))


def _asked(user: str, inputs: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"inputs": dict(inputs or {}), "user": user, "response_mode": "blocking"}


def stop_chat(task_id: str, *, user: str) -> Call[shapes.Done]:
    """Stops a chat's answer; a task that is over, or another user's, is a success too."""
    return Call("POST", f"/chat-messages/{task_id}/stop", shapes.Done, json={"user": user})


def stop_run(task_id: str, *, user: str) -> Call[shapes.Done]:
    """Stops a workflow; a task that is over is a success too."""
    return Call("POST", f"/workflows/tasks/{task_id}/stop", shapes.Done, json={"user": user})


# -- conversations -----------------------------------------------------------------------------


def conversations(*, user: str, last_id: str = "", limit: int = 20) -> Call[shapes.Conversations]:
    """A page of a user's conversations, behind ``last_id``."""
    params = {"user": user, "limit": limit} | ({"last_id": last_id} if last_id else {})
    return Call("GET", "/conversations", shapes.Conversations, params)


def messages(
    conversation_id: str, *, user: str, first_id: str = "", limit: int = 20
) -> Call[shapes.Messages]:
    """A page of a conversation's messages, those before ``first_id``."""
    params = {"user": user, "conversation_id": conversation_id, "limit": limit}
    params |= {"first_id": first_id} if first_id else {}
    return Call("GET", "/messages", shapes.Messages, params)


def rename_conversation(conversation_id: str, *, name: str, user: str) -> Call[shapes.Conversation]:
    path = f"/conversations/{conversation_id}/name"
    return Call("POST", path, shapes.Conversation, json={"name": name, "user": user})


def delete_conversation(conversation_id: str, *, user: str) -> Call[None]:
    path = f"/conversations/{conversation_id}"
    return Call("DELETE", path, type(None), json={"user": user})


def give_feedback(
    message_id: str, *, rating: shapes.Rating | None, user: str, content: str = ""
) -> Call[shapes.Done]:
    """Rates an answer, or takes the rating back."""
    body = {"rating": rating, "user": user, "content": content}
    return Call("POST", f"/messages/{message_id}/feedbacks", shapes.Done, json=body)


# -- the app -----------------------------------------------------------------------------------


def info() -> Call[shapes.AppInfo]:
    """Which app the key opens.

    ``KeyRefused`` for a key that was deleted, ``Denied`` where the app is gone or its API is off.
    """
    return Call("GET", "/info", shapes.AppInfo)


def parameters() -> Call[shapes.AppParameters]:
    return Call("GET", "/parameters", shapes.AppParameters)
