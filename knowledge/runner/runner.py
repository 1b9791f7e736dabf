"""The runner: the backend of apps that run in the portal itself."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from inference.gateway.calls import APP
from inference.jobs.cancelling import cancel_job
from inference.jobs.catalogue import named_models
from inference.jobs.live import LiveEnd, LiveJob, LiveJobs, live_request
from inference.jobs.submission import key_context
from knowledge.applications.backends import (
    AnsweredMessage,
    AppCall,
    AppEvent,
    Began,
    Delta,
    Ended,
    Source,
    Sources,
)
from knowledge.applications.spec import Knowledge
from knowledge.retrieval import Found, Question, retrieve
from knowledge.runner.prompting import Fitted, fit
from portal.core.actors import Context
from portal.core.env import env
from portal.core.errors import Forbidden
from portal.core.tenancy import tenant_scope
from tenants.permissions import Scope

_SCOPES: Final = (Scope.APPS, Scope.APPS_WRITE, Scope.INFERENCE)


class Runner:
    """Retrieves, fills the template, generates by an ordinary job of the caller's key, and cites.

    Args:
        live: the jobs that this process follows.
    """

    def __init__(self, live: LiveJobs) -> None:
        self._live = live

    async def answer(self, call: AppCall) -> AsyncGenerator[AppEvent, None]:
        found = await self._found(call)
        fitted, job = await self._live.begin(partial(self._begin, call, _sources(call, found)))
        async with self._live.follow(job) as pieces:
            yield Began(job.id)
            if call.spec.knowledge:
                degraded = " ".join(one.degraded for one in found if one.degraded)
                yield Sources(fitted.shown, fitted.left_out, degraded)
            async for piece in pieces:
                if isinstance(piece, LiveEnd):
                    yield Ended(piece.finish_reason, piece.prompt_tokens, piece.completion_tokens)
                else:
                    yield Delta(piece)

    async def stop(self, context: Context, message: AnsweredMessage) -> None:
        if message.job_id is not None:
            work = partial(cancel_job, context=_spending(context), job_id=message.job_id)
            await self._live.on_thread(work)

    async def rate(
        self, context: Context, message: AnsweredMessage, rating: int, comment: str
    ) -> None:
        """The portal's own row is all there is of it."""

    async def forget(self, context: Context, remote_conversation_id: str) -> None:
        """The portal's own rows are all there is of it."""

    async def _found(self, call: AppCall) -> Sequence[Found]:
        if not call.search:
            return []
        asked = [partial(_search, call, one) for one in call.spec.knowledge]
        return await asyncio.gather(*map(self._live.on_thread, asked))

    def _begin(self, call: AppCall, sources: Sequence[Source]) -> tuple[Fitted, LiveJob]:
        context = _spending(call.context)
        with tenant_scope(context):
            named = named_models([call.spec.model]).get(call.spec.model)
        fitted = fit(call, sources, named)
        request = live_request(
            fitted.body,
            action=APP,
            wait_seconds=int(env().queue_timeout_seconds),
            metadata={"app": call.slug, "app_version": str(call.version)},
        )
        scope = next((s for s in _SCOPES if s.value in call.context.scopes), Scope.APPS)
        job = self._live.submit(context=context, request=request, scope=scope, session=call.session)
        return fitted, job


def prepare(call: AppCall) -> Fitted:
    """The request that a call becomes, with what was found in it, for who follows no event loop.

    Raises:
        PortalError: a knowledge base can't be asked.
    """
    found = [_search(call, one) for one in call.spec.knowledge] if call.search else []
    with tenant_scope(call.context):
        named = named_models([call.spec.model]).get(call.spec.model)
    return fit(call, _sources(call, found), named)


def _search(call: AppCall, knowledge: Knowledge) -> Found:
    # Who may call the app may see what it shows, and nothing else of the knowledge base.
    reader = Context.system("app", tenant_id=call.context.tenant_id)
    return retrieve(
        context=replace(reader, request_id=call.context.request_id),
        knowledge_base_id=knowledge.knowledge_base_id,
        question=Question(
            call.search,
            method=knowledge.method,
            top_k=knowledge.top_k,
            score_threshold=knowledge.score_threshold,
            rerank=knowledge.rerank,
        ),
    )


def _sources(call: AppCall, found: Sequence[Found]) -> list[Source]:
    """What was found everywhere, best first."""
    sources = [
        Source(
            document=passage.document,
            text=passage.text,
            score=round(passage.score, 4),
            knowledge_base_id=str(knowledge.knowledge_base_id),
            document_id=str(passage.document_id),
            position=passage.position,
        )
        for knowledge, one in zip(call.spec.knowledge, found, strict=False)
        for passage in one.passages
    ]
    return sorted(sources, key=lambda source: -source.score)


def _spending(context: Context) -> Context:
    """The context of jobs that are charged to the caller's key.

    Raises:
        Forbidden: there is no key.
    """
    if context.tenant_id is None or context.api_key_id is None or context.user_id is None:
        raise Forbidden("Apps are called with an API key.", code="api_key_needed")
    spending = key_context(
        tenant_id=context.tenant_id,
        api_key_id=context.api_key_id,
        user_id=context.user_id,
        label=context.actor.label,
        request_id=context.request_id,
        address=context.address,
    )
    return replace(spending, client_request_id=context.client_request_id)
