"""What a model does: it is registered with it, and all of its versions do it."""

from pathlib import Path

import psycopg
import pytest

from inference.artefacts import import_byte_level
from inference.models import Task
from inference.services import register_model_version
from portal.core.errors import Conflict
from tests import factories, live
from tests.servers import SessionServers


def test_register_a_model_records_its_task_and_keeps_it(
    servers: SessionServers, database: None, tmp_path: Path
) -> None:
    name = factories.unique("embeds")
    live.deploy(servers, name, task=Task.EMBED)
    with psycopg.connect(servers.url("superuser"), autocommit=True) as connection:
        told = connection.execute(
            "SELECT b.detail ->> 'task' FROM audit_event e JOIN audit_body b ON b.event_id = e.id "
            "WHERE e.action = 'model.register_version' AND e.object_label = %s",
            [f"{name}@1"],
        ).fetchall()
    assert told == [("embed",)]
    manifest = import_byte_level(tmp_path, context_length=64)
    with pytest.raises(Conflict, match="makes embeddings"):
        register_model_version(
            context=factories.TESTS,
            name=name,
            label="2",
            manifest=manifest,
            path=tmp_path / manifest.id,
        )
