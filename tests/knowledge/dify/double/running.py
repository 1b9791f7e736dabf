"""How the double runs an app: it retrieves, asks a model, and tells it in Dify's events."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.knowledge.dify.double.http import Refusal
from tests.knowledge.dify.double.outward import post
from tests.knowledge.dify.double.state import (
    App,
    Conversation,
    Dataset,
    Message,
    Workspace,
    new_id,
)
from tests.knowledge.dify.recorded import body_of

STAND_IN = "Vacation is twenty five days. "
RUNNING, SUCCEEDED, FAILED, STOPPED = "running", "succeeded", "failed", "stopped"
PING = b"event: ping\n\n"


class Model:
    """Answers for the models of a workspace.

    Attributes:
        says: the stand-in's answer; None asks the endpoint of the model's credentials.
        asked: the messages of each question, oldest first.
        params: what each question was asked with.
    """

    def __init__(self) -> None:
        self.says: str | None = STAND_IN
        self.asked: list[list[dict[str, str]]] = []
        self.params: list[dict[str, Any]] = []

    def answer(
        self, credentials: dict[str, str], name: str, params: dict[str, Any], prompt: list[Any]
    ) -> tuple[str, int, int]:
        """The answer, and its prompt and completion tokens.

        Raises:
            Refusal: the endpoint did not answer.
        """
        params = _as_the_plugin_sends(params, credentials)
        self.asked.append(prompt)
        self.params.append(params)
        if self.says is not None:
            return self.says, sum(len(m["content"].split()) for m in prompt), 5
        body = {
            "model": credentials.get("endpoint_model_name") or name,
            "messages": prompt,
            "stream": False,
            **params,
        }
        url = f"{credentials['endpoint_url'].rstrip('/')}/chat/completions"
        status, content = post(url, credentials["api_key"], body)
        if status != 200:
            raise Refusal(400, "completion_request_error", f"API request failed: {status}")
        told = json.loads(content)
        usage = told["usage"]
        text = told["choices"][0]["message"]["content"]
        return text, usage["prompt_tokens"], usage["completion_tokens"]


def _as_the_plugin_sends(params: dict[str, Any], credentials: dict[str, str]) -> dict[str, Any]:
    """The plugin of OpenAI-compatible models knows of schemas where its credentials say so.

    It tells the model of the schema in a system message as well, which is left out here.
    """
    form = {name: params[name] for name in ("response_format", "json_schema") if name in params}
    sent = {name: value for name, value in params.items() if name not in form}
    if credentials.get("structured_output_support") != "supported" or not form:
        return sent
    kind = form["response_format"]
    schema = {"json_schema": json.loads(form["json_schema"])} if kind == "json_schema" else {}
    return {**sent, "response_format": {"type": kind, **schema}}


@dataclass
class Run:
    """One question to one app."""

    workspace: Workspace
    app: App
    user: str
    inputs: dict[str, Any]
    query: str
    conversation: Conversation
    config: dict[str, Any]
    id: str = field(default_factory=new_id)
    task_id: str = field(default_factory=new_id)
    message_id: str = field(default_factory=new_id)
    status: str = RUNNING
    error: str = ""
    answer: str = ""
    sources: list[dict[str, Any]] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def outputs(self) -> dict[str, Any]:
        if self.status != SUCCEEDED:
            return {}
        if self.app.mode != "workflow":
            return {"answer": self.answer, "files": []}
        return {o["variable"]: self.answer for o in self.app.node("end")["outputs"]}

    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

    def prepare(self) -> None:
        """Retrieves; a node that is not whole fails the run."""
        retrieval = self._retrieval()
        if retrieval is None:
            return
        ids, settings, query = retrieval
        if not query and self.app.mode != "chat":
            self.status, self.error = FAILED, "Query is required."
            return
        weighted = settings.get("reranking_mode") == "weighted_score"
        if weighted and "weights" not in settings and self.app.mode != "chat":
            self.status, self.error = FAILED, "weights is required"
            return
        found = [hit for i in ids for hit in self._found(i, query)]
        for position, hit in enumerate(found[: settings.get("top_k", 4)], 1):
            self.sources.append({**hit, "position": position})

    def _retrieval(self) -> tuple[list[str], dict[str, Any], str] | None:
        """The knowledge bases, how they are searched, and for what."""
        if self.app.mode == "chat":
            chosen = self.config["dataset_configs"]
            ids = [d["dataset"]["id"] for d in chosen["datasets"]["datasets"]]
            return ids, chosen, self.query
        node = self.app.node("knowledge-retrieval")
        if not node:
            return None
        query = self._value(node["query_variable_selector"])
        return node["dataset_ids"], node["multiple_retrieval_config"], query

    def _found(self, dataset_id: str, query: str) -> list[dict[str, Any]]:
        dataset = self.workspace.datasets.get(dataset_id)
        if dataset is None:
            return []  # Dify goes on without a knowledge base that is gone
        if dataset.provider == "external":
            return self._found_outside(dataset, query)
        template = self._template("app_chat_blocking_200", "app_chatflow_blocking_200")
        words = set(re.findall(r"\w+", query))
        return [
            template
            | {"dataset_id": dataset.id, "dataset_name": dataset.name}
            | {"document_id": document.id, "document_name": document.name}
            | {"segment_id": segment.id, "content": segment.content}
            for document in dataset.documents.values()
            if document.display_status == "available" and not document.lost
            for segment in document.segments
            if words & set(segment.keywords)
        ]

    def _found_outside(self, dataset: Dataset, query: str) -> list[dict[str, Any]]:
        """By the knowledge base's own settings, whatever the app's are."""
        template = body_of("app_chat_external_kb_blocking_200")["metadata"]["retriever_resources"]
        settings = self.workspace.external_apis[str(dataset.external_api)]["settings"]
        asked = dataset.external_retrieval
        body = {
            "retrieval_setting": {
                "top_k": asked.get("top_k", 3),
                "score_threshold": asked.get("score_threshold", 0.5),
            },
            "query": query,
            "knowledge_id": dataset.external_id,
            "metadata_condition": None,
        }
        status, content = post(f"{settings['endpoint']}/retrieval", settings["api_key"], body)
        if status != 200:
            return []
        return [
            template[0]
            | {"dataset_id": dataset.id, "dataset_name": dataset.name}
            | {"document_id": record["metadata"].get("document_id")}
            | {"document_name": record["title"], "content": record["content"]}
            for record in json.loads(content)["records"]
        ]

    def _template(self, chat: str, flow: str) -> dict[str, Any]:
        name = chat if self.app.mode == "chat" else flow
        found: dict[str, Any] = body_of(name)["metadata"]["retriever_resources"][0]
        return found

    def words(self, model: Model) -> Iterator[str]:
        """The words of the answer; none where the run has failed.

        Raises:
            Refusal: the workspace has no such model, or it did not answer; a workflow fails then.
        """
        try:
            yield from self._words(model)
        except Refusal as refusal:
            if self.app.mode == "chat":
                raise
            self.status, self.error = FAILED, refusal.answer.body["message"]

    def _words(self, model: Model) -> Iterator[str]:
        if self.status == FAILED:
            return
        chosen = self.config["model"]
        sent = self.workspace.models.get(chosen["name"])
        if sent is None:
            raise Refusal(400, "provider_not_initialize", "No valid model provider credentials.")
        text, self.prompt_tokens, self.completion_tokens = model.answer(
            sent["credentials"], chosen["name"], chosen["completion_params"], self._prompt()
        )
        for word in re.findall(r"\S+\s*", text):
            self.answer += word
            yield word

    def _prompt(self) -> list[dict[str, str]]:
        context = "\n".join(source["content"] for source in self.sources)
        if self.app.mode == "chat":
            system = self._filled(f"{context}\n\n{self.config['pre_prompt']}", context)
            return [*_said("system", system), *self._history(0), *_said("user", self.query)]
        node = self.app.node("llm")
        said = [
            message
            for part in node["prompt_template"]
            for message in _said(part["role"], self._filled(part["text"], context))
            if message["content"]
        ]
        memory = node.get("memory")
        if not memory:
            return said
        # Passages are not put into the last message.
        last = self._filled(memory["query_prompt_template"], "{{#context#}}")
        return [*said, *self._history(memory["window"]["size"]), *_said("user", last)]

    def _history(self, most: int) -> list[dict[str, str]]:
        """The newest questions and answers, oldest first; 0 for all."""
        return [
            said
            for message in self.conversation.messages[-most:]
            for said in (*_said("user", message.query), *_said("assistant", message.answer))
        ]

    def _filled(self, text: str, context: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1]
            return context if name == "context" else self._value(name.split("."))

        return re.sub(r"\{\{#([\w.]+)#\}\}", value, text)

    def _value(self, selector: list[str]) -> str:
        if selector == ["sys", "query"]:
            return self.query
        return str(self.inputs.get(selector[-1], ""))

    def end(self, status: str) -> None:
        if self.status == RUNNING:
            self.status = status

    def remember(self) -> Message:
        """The message, as the conversation keeps it."""
        message = Message(self.message_id, self.query, self.answer, self.sources)
        self.conversation.messages.append(message)
        self.app.conversations[self.conversation.id] = self.conversation
        return message


def _said(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def run_of(
    workspace: Workspace,
    app: App,
    user: str,
    inputs: dict[str, Any],
    query: str,
    conversation: Conversation | None,
) -> Run:
    name = query if len(query) <= 20 else f"{query[:20]}…"
    run = Run(
        workspace, app, user, inputs, query, conversation or Conversation(user, name),
        app.live_config(),
    )  # fmt: skip
    app.tasks[run.task_id] = user
    return run


# -- events ------------------------------------------------------------------------------------


def sse(event: Any) -> bytes:
    if isinstance(event, bytes):
        return event
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def chat_events(run: Run, words: Iterator[str]) -> Iterator[Any]:
    """The events of a chat, or of a chatflow, whose run they surround."""
    if run.app.mode != "chat":
        yield from _flow_chat_events(run, words)
        return
    events = {e["event"]: e for e in body_of("app_chat_streaming_200")}
    try:
        for word in words:
            yield _of(run, events["message"]) | {"answer": word}
    except Refusal as refusal:
        yield _error(run, refusal)
        return
    yield _of(run, events["message"]) | {"answer": ""}
    yield _ended(run, events["message_end"])


def _flow_chat_events(run: Run, words: Iterator[str]) -> Iterator[Any]:
    failed = run.status == FAILED
    name = "app_chatflow_streaming_failed_200" if failed else "app_chatflow_streaming_200"
    recorded = body_of(name)
    message = next((e for e in recorded if e.get("event") == "message"), None)
    yield PING
    for event in recorded[1:]:
        kind = event["event"]
        if kind == "message":
            continue
        if message and kind == "node_finished" and event["data"]["node_type"] == "llm":
            for word in words:
                yield _of(run, message) | {"answer": word}
            yield _of(run, message) | {"answer": ""}
        if kind == "message_end":
            yield _ended(run, event)
        elif kind == "workflow_finished":
            yield _finished(run, event)
        else:
            yield _node(run, event)


def workflow_events(run: Run, words: Iterator[str]) -> Iterator[Any]:
    recorded = body_of("app_workflow_run_streaming_200")
    chunk = next(e for e in recorded if e.get("event") == "text_chunk")
    yield PING
    for event in recorded[1:]:
        kind = event["event"]
        if kind == "text_chunk":
            continue
        if kind == "node_started" and event["data"]["node_type"] == "llm":
            yield from _retrieval_events(run)
        if kind == "node_finished" and event["data"]["node_type"] == "llm":
            for word in words:
                yield _of(run, {**chunk, "data": {**chunk["data"], "text": word}})
            yield _of(run, {**chunk, "data": {**chunk["data"], "text": ""}})
        yield _finished(run, event) if kind == "workflow_finished" else _node(run, event)


def _retrieval_events(run: Run) -> Iterator[Any]:
    """As a chatflow tells of them, without what only a conversation has."""
    if not run.app.node("knowledge-retrieval"):
        return
    for event in body_of("app_chatflow_streaming_200")[1:]:
        if (event.get("data") or {}).get("node_type") == "knowledge-retrieval":
            talk = ("conversation_id", "message_id")
            yield _node(run, {k: v for k, v in event.items() if k not in talk})


def _of(run: Run, event: dict[str, Any]) -> dict[str, Any]:
    own = {
        "task_id": run.task_id,
        "id": run.message_id,
        "message_id": run.message_id,
        "conversation_id": run.conversation.id,
        "workflow_run_id": run.id,
    }
    return {k: own.get(k, v) for k, v in event.items()}


def _node(run: Run, event: dict[str, Any]) -> dict[str, Any]:
    """The event of a node; of one that ended, with what came out of it."""
    told = _of(run, event)
    if event["event"] != "node_finished" or not event["data"]["outputs"]:
        return told
    outputs = event["data"]["outputs"]
    if event["data"]["node_type"] == "llm":
        usage = outputs["usage"] | run.usage()
        outputs = outputs | {"text": run.answer, "usage": usage}
    elif event["data"]["node_type"] == "knowledge-retrieval":
        outputs = {"result": [_found(source, outputs["result"][0]) for source in run.sources]}
    return told | {"data": event["data"] | {"outputs": outputs}}


def _found(source: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    metadata = template["metadata"]
    told = {key: source.get(key, value) for key, value in metadata.items()}
    return template | {
        "metadata": told,
        "title": source["document_name"],
        "content": source["content"],
    }


def _ended(run: Run, event: dict[str, Any]) -> dict[str, Any]:
    run.remember()
    told = _of(run, event)
    known = event["metadata"]["retriever_resources"][0]
    told["metadata"] = event["metadata"] | {
        "usage": event["metadata"]["usage"] | run.usage(),
        "retriever_resources": [{k: s.get(k, known[k]) for k in known} for s in run.sources],
    }
    return told


def _finished(run: Run, event: dict[str, Any]) -> dict[str, Any]:
    run.end(SUCCEEDED)
    told = _of(run, event)
    told["data"] = event["data"] | {
        "id": run.id,
        "status": run.status,
        "outputs": run.outputs,
        "error": run.error or None,
        "total_tokens": run.prompt_tokens + run.completion_tokens,
    }
    return told


def _error(run: Run, refusal: Refusal) -> dict[str, Any]:
    body = refusal.answer.body
    return {
        "event": "error",
        "task_id": run.task_id,
        "message_id": run.message_id,
        "conversation_id": run.conversation.id,
        "status": body["status"],
        "code": body["code"],
        "message": body["message"],
    }
