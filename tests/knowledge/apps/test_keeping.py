"""What was said: how long it is kept, and which keys of a browser may say anything."""

from datetime import timedelta

import psycopg
import pytest
from django.utils import timezone

from knowledge.applications import conversations
from knowledge.applications.conversations import Said
from knowledge.applications.expiry import expire_conversations
from knowledge.models import App, AppMessage, Conversation, MessageState
from portal.core.actors import ANONYMOUS, Context
from portal.core.crypto import InvalidCiphertext
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tenants.errors import InvalidApiKey
from tenants.identity.keys import authenticate_api_key
from tenants.services.keys import create_playground_key
from tests.factories import Organisation, api_key
from tests.knowledge.apps.support import make_app
from tests.servers import SessionServers

NOBODY = Context(actor=ANONYMOUS)


def said_to(tenant: Organisation, app: App, query: str) -> AppMessage:
    key = api_key(tenant, scopes=["apps"]).api_key
    context = Context(
        actor=tenant.context.actor, tenant_id=tenant.id, user_id=key.user_id, api_key_id=key.pk
    )
    with tenant_scope(context):
        conversation = conversations.new_conversation(context, app, uuid7(), "")
        conversations.touch(conversation, app)
        conversation.save()
        message = AppMessage(
            tenant_id=tenant.id, conversation=conversation, version=1, state=MessageState.ANSWERED
        )
        conversations.seal(message, Said(query, {}, "because"))
        message.save(force_insert=True)
    return message


def left(tenant: Organisation) -> tuple[int, int]:
    with tenant_scope(tenant.context):
        return Conversation.objects.count(), AppMessage.objects.count()


def test_expire_deletes_what_was_kept_long_enough_and_nothing_else(
    servers: SessionServers, tenant_a: Organisation, tenant_b: Organisation, model: str
) -> None:
    old = said_to(tenant_a, make_app(tenant_a, model), "old")
    said_to(tenant_b, make_app(tenant_b, model), "new")
    with tenant_scope(tenant_a.context):
        Conversation.objects.filter(pk=old.conversation_id).update(
            expires_at=timezone.now() - timedelta(seconds=1)
        )
    with psycopg.connect(servers.url("gateway"), autocommit=True) as link:
        expire_conversations(link)
    assert left(tenant_a) == (0, 0)
    assert left(tenant_b) == (1, 1)


def test_keep_days_say_when_a_conversation_expires(tenant_a: Organisation, model: str) -> None:
    app = make_app(tenant_a, model, settings={"keep_days": 3})
    message = said_to(tenant_a, app, "x")
    with tenant_scope(tenant_a.context):
        conversation = Conversation.objects.get(pk=message.conversation_id)
    assert conversation.expires_at - conversation.touched_at == timedelta(days=3)


def test_message_put_into_another_row_can_not_be_read(tenant_a: Organisation, model: str) -> None:
    app = make_app(tenant_a, model)
    first, second = said_to(tenant_a, app, "first"), said_to(tenant_a, app, "second")
    with tenant_scope(tenant_a.context):
        assert conversations.open_message(first).query == "first"
        second.sealed = first.sealed
        with pytest.raises(InvalidCiphertext):
            conversations.open_message(second)


def test_playground_key_opens_apps_with_its_session_alone(tenant_a: Organisation) -> None:
    made = create_playground_key(context=tenant_a.developer.context, session_key="a session")
    context = authenticate_api_key(made.token, base=NOBODY, session_key="a session")
    assert context.auth_method == "playground_key"
    assert context.scopes == {"inference", "apps"}
    for session in (None, "", "another session"):
        with pytest.raises(InvalidApiKey):
            authenticate_api_key(made.token, base=NOBODY, session_key=session)
