"""Who uses a knowledge base in Dify: what is used is not deleted."""

from typing import Final
from uuid import UUID

from knowledge.connections.vault import open_dify
from knowledge.dify.console_api import ConsoleApi
from knowledge.dify.errors import DifyFault, Missing
from knowledge.models import Connection, KnowledgeBase, RemoteObject
from portal.core.errors import Conflict

CALL_SECONDS: Final = 5.0
KNOWLEDGE_BASE: Final = "knowledge_base"


class InUse(Conflict):
    """Apps in Dify need it: it is not deleted."""

    code = "knowledge_base_in_use"


def refuse_if_used(base: KnowledgeBase, connection_id: UUID | None) -> None:
    """Nothing, unless apps in Dify search a knowledge base where it stands there.

    A Dify that can't be asked now refuses nothing: it is asked again before anything is deleted
    there.

    Raises:
        InUse: naming the apps.
    """
    if connection_id is None:
        return
    link = RemoteObject.objects.filter(
        connection_id=connection_id, kind=KNOWLEDGE_BASE, local_id=base.pk, gone=False
    ).first()
    if link is None or not link.remote_id:
        return
    connection = Connection.objects.get(pk=connection_id)
    try:
        with open_dify(connection, call_seconds=CALL_SECONDS) as dify:
            refuse_if_used_there(dify.console, link)
    except DifyFault:
        return


def refuse_if_used_there(console: ConsoleApi, link: RemoteObject) -> None:
    """Nothing, unless apps in Dify search it: Dify would delete it all the same, and break them.

    Raises:
        InUse: naming the apps.
        DifyFault: Dify could not be asked.
    """
    try:
        if not console.in_use(link.remote_id):
            return
        apps = sorted(app.name for app in console.related_apps(link.remote_id))
    except Missing:
        return
    named = ", ".join(apps) or "some without a name"
    raise InUse(f"Apps in Dify search '{link.label}': {named}. Take it out of them first.")
