"""Verbs of those who have talked to an app: rating an answer, deleting a conversation."""

from collections.abc import Callable, Coroutine
from typing import Any, Final
from uuid import UUID

import structlog
from asgiref.sync import async_to_sync
from django.db import transaction

from inference.jobs.live import LiveJobs
from knowledge.applications import conversations
from knowledge.applications.calling import callable_app, count
from knowledge.applications.choosing import Backends
from knowledge.applications.events import AppEvent
from knowledge.models import AppMessage, Conversation
from knowledge.trail import intent_about
from portal.core.actors import Context
from portal.core.errors import Invalid, PortalError
from portal.core.tenancy import tenant_scope
from tenants.permissions import Action, require
from tenants.services.checks import require_tenant

log = structlog.get_logger(__name__)

MOST_COMMENT_CHARS: Final = 2000


def rate_message(
    *,
    context: Context,
    app: str | UUID,
    message_id: UUID,
    rating: int,
    comment: str = "",
    user: str = "",
) -> AppMessage:
    """Notes how an answer was liked, in the place of what was noted before.

    Args:
        rating: 1 for liked, -1 for disliked, 0 to take it back.
        user: whose conversation it is, as the caller named it.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such message of this caller.
        Invalid: the comment is too long, or the rating none of these.
    """
    require(context, Action.APP_CALL)
    require_tenant(context)
    if rating not in (-1, 0, 1):
        raise Invalid("'rating' must be 1, 0 or -1.", param="rating")
    if len(comment) > MOST_COMMENT_CHARS or "\0" in comment:
        raise Invalid(f"'comment' may have {MOST_COMMENT_CHARS} characters.", param="comment")
    with tenant_scope(context):
        found = callable_app(context, app)
        message = conversations.get_message(context, found, message_id, user)
        before, message.rating = message.rating, rating
        conversations.seal_comment(message, comment)
        with intent_about(AppEvent.RATE, found, message=str(message.pk), rating=rating):
            message.save(update_fields=["rating", "sealed_comment"])
        count(
            found.pk,
            likes=int(rating == 1) - int(before == 1),
            dislikes=int(rating == -1) - int(before == -1),
        )
        if message.remote_id:
            told = conversations.as_answered(found, message)
            backend = Backends(LiveJobs()).of(found)
            _tell(lambda: backend.rate(context, told, rating, comment))
    return message


def delete_conversation(
    *, context: Context, app: str | UUID, conversation_id: UUID, user: str = ""
) -> None:
    """Deletes a conversation with all its messages.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such conversation of this caller.
    """
    require(context, Action.APP_CALL)
    require_tenant(context)
    with tenant_scope(context):
        found = callable_app(context, app)
        conversation = conversations.get_conversation(context, found, conversation_id, user)
        with intent_about(AppEvent.DELETE_CONVERSATION, found, conversation=str(conversation.pk)):
            Conversation.objects.filter(pk=conversation.pk).delete()
        if conversation.remote_id:
            backend, remote = Backends(LiveJobs()).of(found), conversation.remote_id
            _tell(lambda: backend.forget(context, remote))


def _tell(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Tells the backend once it is committed; what it does not hear, the portal still has."""

    def told() -> None:
        try:
            async_to_sync(work)()
        except PortalError as fault:
            log.warning("app.backend_not_told", error=fault.message)

    transaction.on_commit(told)
