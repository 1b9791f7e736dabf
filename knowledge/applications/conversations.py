"""What is said to apps: kept encrypted until it expires, for the API key and user that said it.

Every function runs inside the tenant's scope.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, Final
from uuid import UUID

import msgspec
from django.db.models import Count, QuerySet
from django.utils import timezone

from inference.payloads import Ciphers
from knowledge.applications.backends import AnsweredMessage, Source, Turn
from knowledge.models import App, AppMessage, Conversation, MessageState
from portal.core.actors import Context
from portal.core.crypto import Cipher, Keyring
from portal.core.env import env
from portal.core.errors import Conflict, NotFound
from tenants.models import TenantDataKey

_SAID: Final = b"app message"
_COMMENT: Final = b"app comment"
TITLE_CHARS: Final = 80


class Said(msgspec.Struct, frozen=True, array_like=True):
    """A message in clear."""

    query: str = ""
    inputs: dict[str, Any] = {}
    answer: str = ""
    sources: tuple[Source, ...] = ()


@cache
def _ciphers(purpose: bytes) -> Ciphers:
    return Ciphers(Keyring.parse(env().encryption_keys.get_secret_value()), purpose=purpose)


def _cipher(tenant_id: UUID, version: int, purpose: bytes = _SAID) -> Cipher:
    wrapped = TenantDataKey.objects.values_list("wrapped", flat=True).get(version=version)
    return _ciphers(purpose).of(tenant_id, version, bytes(wrapped))


def _newest_key() -> int:
    version = TenantDataKey.objects.order_by("-version").values_list("version", flat=True).first()
    if version is None:
        raise Conflict("The tenant has no data key.", code="no_data_key")
    return version


def seal(message: AppMessage, said: Said) -> None:
    """Puts what was said into a message, encrypted; the row is not saved."""
    message.data_key_version = message.data_key_version or _newest_key()
    cipher = _cipher(message.tenant_id, message.data_key_version)
    message.sealed = cipher.encrypt(msgspec.msgpack.encode(said), row_id=message.pk)


def open_message(message: AppMessage) -> Said:
    """What was said."""
    cipher = _cipher(message.tenant_id, message.data_key_version)
    plain = cipher.decrypt(bytes(message.sealed), row_id=message.pk)
    return msgspec.msgpack.decode(plain, type=Said)


def seal_comment(message: AppMessage, comment: str) -> None:
    """Puts what was said with a rating into a message, encrypted; the row is not saved."""
    cipher = _cipher(message.tenant_id, message.data_key_version, _COMMENT)
    text = comment.encode()
    message.sealed_comment = cipher.encrypt(text, row_id=message.pk) if comment else None


def open_comment(message: AppMessage) -> str:
    """What was said with the rating."""
    if message.sealed_comment is None:
        return ""
    cipher = _cipher(message.tenant_id, message.data_key_version, _COMMENT)
    return cipher.decrypt(bytes(message.sealed_comment), row_id=message.pk).decode()


def conversations(context: Context, app: App, end_user: str) -> QuerySet[Conversation]:
    """The caller's conversations with an app, newest first: of its API key and that user alone."""
    return Conversation.objects.filter(
        app_id=app.pk,
        api_key_id=context.api_key_id,
        end_user=end_user,
        expires_at__gt=timezone.now(),
    ).annotate(message_count=Count("messages"))


def get_conversation(
    context: Context, app: App, conversation_id: UUID, end_user: str
) -> Conversation:
    """One of them.

    Raises:
        NotFound: none; another caller's is this too.
    """
    found = conversations(context, app, end_user).filter(pk=conversation_id).first()
    if found is None:
        raise NotFound("There is no such conversation.")
    return found


def get_message(context: Context, app: App, message_id: UUID, end_user: str) -> AppMessage:
    """One message of the caller's conversations with an app.

    Raises:
        NotFound: none; another caller's is this too.
    """
    own = conversations(context, app, end_user).values("pk")
    found = AppMessage.objects.select_related("conversation").filter(
        pk=message_id, conversation_id__in=own
    )
    message = found.first()
    if message is None:
        raise NotFound("There is no such message.")
    return message


def messages_of(conversation: Conversation) -> QuerySet[AppMessage]:
    """A conversation's messages, newest first."""
    return AppMessage.objects.filter(conversation_id=conversation.pk)


def turns_of(conversation: Conversation, most: int) -> list[Turn]:
    """The newest questions that were answered, oldest first."""
    answered = messages_of(conversation).filter(
        state__in=(MessageState.ANSWERED, MessageState.STOPPED)
    )
    said = [open_message(message) for message in answered.order_by("-pk")[:most]]
    return [Turn(one.query, one.answer) for one in reversed(said) if one.answer]


def titles(conversation_ids: Sequence[UUID]) -> Mapping[UUID, str]:
    """What each conversation began with, cut short."""
    firsts = (
        AppMessage.objects.filter(conversation_id__in=conversation_ids)
        .order_by("conversation_id", "pk")
        .distinct("conversation_id")
    )
    return {m.conversation_id: open_message(m).query[:TITLE_CHARS] for m in firsts}


def new_conversation(
    context: Context, app: App, conversation_id: UUID, end_user: str
) -> Conversation:
    """A conversation that is not saved yet."""
    assert context.tenant_id is not None, "a key has a tenant"
    assert context.api_key_id is not None, "apps are called with a key"
    return Conversation(
        id=conversation_id,
        tenant_id=context.tenant_id,
        app_id=app.pk,
        api_key_id=context.api_key_id,
        end_user=end_user,
    )


def touch(conversation: Conversation, app: App) -> None:
    """It was spoken in just now, and is kept from here on; the row is not saved."""
    conversation.touched_at = timezone.now()
    conversation.expires_at = conversation.touched_at + timedelta(days=app.keep_days)


def as_answered(app: App, message: AppMessage) -> AnsweredMessage:
    """A message as its backend is reminded of it."""
    conversation = message.conversation
    return AnsweredMessage(
        app.pk,
        conversation.pk,
        message.pk,
        conversation.end_user,
        message.job_id,
        conversation.remote_id,
        message.remote_id,
    )


_STUCK: Final = timedelta(hours=1)


def state_of(message: AppMessage) -> MessageState:
    """How far a message is; one whose process died is a failed one."""
    state = MessageState(message.state)
    stuck = message.created_at < timezone.now() - _STUCK
    return MessageState.FAILED if state == MessageState.ANSWERING and stuck else state
