"""The double's service API for apps: one app by its key, and one user's conversations in it."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.knowledge.dify.double.http import Answer, Refusal, Request, invalid, missing
from tests.knowledge.dify.double.running import (
    FAILED,
    STOPPED,
    SUCCEEDED,
    Model,
    Run,
    chat_events,
    run_of,
    sse,
    workflow_events,
)
from tests.knowledge.dify.double.state import App, Conversation, Message, Workspace, new_id
from tests.knowledge.dify.recorded import body_of

SSE_TYPE, UTF8_JSON = "text/event-stream; charset=utf-8", "application/json; charset=utf-8"
CHAT_MODES, FLOW_MODES = ("chat", "advanced-chat"), ("workflow", "advanced-chat")
_SUCCESS = {"result": "success"}
_ID = r"([0-9a-f-]{36})"


@dataclass(frozen=True)
class Caller:
    """Whose key it is."""

    workspace: Workspace
    app: App


Handler = Callable[["AppRoutes", Caller, Request], Answer]


class AppRoutes:
    """What ``/v1`` does to an app.

    Attributes:
        model: what answers; by default a stand-in that always says the same.
        gate: while it is clear, a streamed answer waits behind its first words.
        stopped: the tasks that were told to stop.
    """

    def __init__(self) -> None:
        self.model = Model()
        self.gate = threading.Event()
        self.gate.set()
        self.stopped: set[str] = set()

    # -- the app -----------------------------------------------------------------------------

    def info(self, caller: Caller, request: Request) -> Answer:
        body: dict[str, Any] = body_of("app_info")
        told = caller.app.dsl["app"]
        return Answer(
            200,
            body
            | {"name": caller.app.name, "mode": caller.app.mode}
            | {"description": told.get("description", "")},
        )

    def parameters(self, caller: Caller, request: Request) -> Answer:
        body: dict[str, Any] = body_of("app_parameters")
        live = caller.app.live_config()
        return Answer(200, body | {k: live[k] for k in body.keys() & live.keys()})

    # -- asking ------------------------------------------------------------------------------

    def chat(self, caller: Caller, request: Request) -> Answer:
        app, sent = caller.app, request.json
        if app.mode not in CHAT_MODES:
            raise _wrong_mode("not_chat_app")
        user = _asked(sent, "ChatRequestPayload")
        if "query" not in sent:
            raise invalid("1 validation error for ChatRequestPayload\nquery")
        conversation = self._conversation(app, user, sent.get("conversation_id"))
        _require_published(app)
        run = run_of(caller.workspace, app, user, sent["inputs"], sent["query"], conversation)
        if sent.get("response_mode") == "streaming":
            return Answer(200, stream=self._stream(run, chat_events), media_type=SSE_TYPE)
        self._finish(run)
        if run.status == FAILED:
            raise invalid(f"Run failed: {run.error}")
        return Answer(200, _chat_answer(run), UTF8_JSON)

    def run(self, caller: Caller, request: Request) -> Answer:
        app, sent = caller.app, request.json
        if app.mode != "workflow":
            raise _wrong_mode("not_workflow_app")
        user = _asked(sent, "WorkflowRunPayload")
        _require_published(app)
        _require_inputs(app, sent["inputs"])
        run = run_of(caller.workspace, app, user, sent["inputs"], "", None)
        if sent.get("response_mode") == "streaming":
            return Answer(200, stream=self._stream(run, workflow_events), media_type=SSE_TYPE)
        self._finish(run)
        body: dict[str, Any] = body_of("app_workflow_run_blocking_200")
        body |= {"task_id": run.task_id, "workflow_run_id": run.id}
        body["data"] |= {
            "id": run.id,
            "status": run.status,
            "outputs": run.outputs,
            "error": run.error or None,
            "total_tokens": run.prompt_tokens + run.completion_tokens,
        }
        return Answer(200, body, UTF8_JSON)

    def _finish(self, run: Run) -> None:
        run.prepare()
        for _ in run.words(self.model):
            pass
        run.end(SUCCEEDED)

    def _stream(
        self, run: Run, events: Callable[[Run, Iterator[str]], Iterator[Any]]
    ) -> Iterator[bytes]:
        run.prepare()
        for event in events(run, self._words(run)):
            yield sse(event)

    def _words(self, run: Run) -> Iterator[str]:
        for word in run.words(self.model):
            yield word
            while not self.gate.wait(0.01):
                if run.task_id in self.stopped:
                    break
            if run.task_id in self.stopped:
                run.end(STOPPED)
                return
        run.end(SUCCEEDED)

    def stop_chat(self, caller: Caller, request: Request) -> Answer:
        """Another user's task goes on, and this is answered all the same."""
        if not request.json.get("user"):
            raise invalid("Arg user must be provided.")
        known = caller.app.tasks.get(request.ids[0])
        if known == request.json["user"]:
            self.stopped.add(request.ids[0])
        return Answer(200, _SUCCESS)

    def stop_run(self, caller: Caller, request: Request) -> Answer:
        if not request.json.get("user"):
            raise invalid("Arg user must be provided.")
        self.stopped.add(request.ids[0])
        return Answer(200, _SUCCESS)

    # -- conversations -----------------------------------------------------------------------

    @staticmethod
    def _conversation(app: App, user: str, conversation_id: Any) -> Conversation | None:
        if not conversation_id:
            return None
        found = app.conversations.get(str(conversation_id))
        if found is None or found.user != user:
            raise missing("Conversation Not Exists.")
        return found

    def _named(self, caller: Caller, request: Request, user: Any) -> Conversation:
        if not user:
            raise invalid("Arg user must be provided.")
        found = self._conversation(caller.app, str(user), request.ids[0])
        assert found is not None
        return found

    def conversations(self, caller: Caller, request: Request) -> Answer:
        user = request.query.get("user")
        own = [c for c in caller.app.conversations.values() if c.user == user]
        own.sort(key=lambda c: c.updated_at, reverse=True)
        shapes = [_conversation_shape(caller.app, c) for c in own]
        return Answer(200, _cursor(shapes, request, request.query.get("last_id")))

    def messages(self, caller: Caller, request: Request) -> Answer:
        user, wanted = request.query.get("user", ""), request.query.get("conversation_id")
        found = self._conversation(caller.app, user, wanted)
        if found is None:
            raise invalid("conversation_id is required")
        shapes = [_message_shape(found, message) for message in reversed(found.messages)]
        return Answer(200, _cursor(shapes, request, request.query.get("first_id")))

    def rename(self, caller: Caller, request: Request) -> Answer:
        found = self._named(caller, request, request.json.get("user"))
        found.name = request.json["name"]
        return Answer(200, _conversation_shape(caller.app, found))

    def delete(self, caller: Caller, request: Request) -> Answer:
        found = self._named(caller, request, request.json.get("user"))
        del caller.app.conversations[found.id]
        return Answer(204)

    def feedback(self, caller: Caller, request: Request) -> Answer:
        sent = request.json
        for conversation in caller.app.conversations.values():
            for message in conversation.messages:
                if message.id == request.ids[0] and conversation.user == sent.get("user"):
                    message.rating, message.comment = sent.get("rating"), sent.get("content")
                    return Answer(200, _SUCCESS)
        raise missing("Message Not Exists.")


ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", "/info", AppRoutes.info),
    ("GET", "/parameters", AppRoutes.parameters),
    ("POST", "/chat-messages", AppRoutes.chat),
    ("POST", f"/chat-messages/{_ID}/stop", AppRoutes.stop_chat),
    ("POST", "/workflows/run", AppRoutes.run),
    ("POST", f"/workflows/tasks/{_ID}/stop", AppRoutes.stop_run),
    ("GET", "/conversations", AppRoutes.conversations),
    ("DELETE", f"/conversations/{_ID}", AppRoutes.delete),
    ("POST", f"/conversations/{_ID}/name", AppRoutes.rename),
    ("GET", "/messages", AppRoutes.messages),
    ("POST", f"/messages/{_ID}/feedbacks", AppRoutes.feedback),
]


def _wrong_mode(code: str) -> Refusal:
    return Refusal(400, code, "Please check if your app mode matches the right API route.")


def _asked(sent: dict[str, Any], payload: str) -> str:
    """The user of a question that is whole."""
    if "inputs" not in sent:
        raise invalid(f"1 validation error for {payload}\ninputs")
    if not sent.get("user"):
        raise invalid("Arg user must be provided.")
    return str(sent["user"])


def _require_published(app: App) -> None:
    if app.mode in FLOW_MODES and app.live is None:
        raise invalid("Workflow not published")


def _require_inputs(app: App, inputs: dict[str, Any]) -> None:
    for variable in app.node("start")["variables"]:
        if variable["required"] and not inputs.get(variable["variable"]):
            raise invalid(f"{variable['variable']} is required in input form")


def _chat_answer(run: Run) -> dict[str, Any]:
    body: dict[str, Any] = body_of("app_chat_blocking_200")
    message = run.remember()
    body |= {"task_id": run.task_id, "id": message.id, "message_id": message.id}
    body |= {"conversation_id": run.conversation.id, "mode": run.app.mode, "answer": run.answer}
    body["metadata"]["retriever_resources"] = run.sources
    body["metadata"]["usage"] |= run.usage()
    return body


def _conversation_shape(app: App, found: Conversation) -> dict[str, Any]:
    body: dict[str, Any] = body_of("app_conversation_rename")
    return body | {
        "id": found.id,
        "name": found.name,
        "introduction": app.live_config().get("opening_statement", ""),
        "created_at": found.created_at,
        "updated_at": found.updated_at,
    }


def _message_shape(conversation: Conversation, message: Message) -> dict[str, Any]:
    body: dict[str, Any] = body_of("app_messages")["data"][0]
    template = body["retriever_resources"][0]
    sources = [
        {k: source.get(k, template[k]) for k in template}
        | {"id": new_id(), "message_id": message.id}
        for source in message.sources
    ]
    return body | {
        "id": message.id,
        "conversation_id": conversation.id,
        "query": message.query,
        "answer": message.answer.strip(),
        "feedback": {"rating": message.rating} if message.rating else None,
        "retriever_resources": sources,
        "created_at": message.created_at,
    }


def _cursor(shapes: list[dict[str, Any]], request: Request, behind: str | None) -> dict[str, Any]:
    """The part of a list behind an id; all of it without one."""
    limit = int(request.query.get("limit", 20))
    ids = [shape["id"] for shape in shapes]
    start = ids.index(behind) + 1 if behind in ids else 0
    kept = shapes[start : start + limit]
    return {"limit": limit, "has_more": start + limit < len(shapes), "data": kept}
