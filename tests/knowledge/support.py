"""Documents indexed and asked by hand: the worker that embeds is a thread of the test."""

import base64
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import psycopg
from django.utils import timezone

from inference.engines.vectors import Vector, dot, pack_vectors, unit
from inference.models import Deployment, JobState, Task
from inference.payloads import Ciphers, unpack_prompt
from inference.settlement import Settlement, settle
from inference.worker.claims import Claimed
from knowledge.indexing import embed_step, read_step
from knowledge.models import UNDER_WAY, Document, DocumentState
from knowledge.selectors import get_document
from portal.core.crypto import Keyring
from portal.core.env import env
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation, unique
from tests.inference.bench import claim
from tests.live import deploy
from tests.servers import SessionServers

# Each row is one meaning: its words are near each other, and far from those of other rows.
_MEANINGS = (
    ("car", "automobile", "汽车", "轿车"),
    ("money", "refund", "报销", "发票"),
    ("ill", "fever", "发烧", "感冒"),
    ("pump", "vibration", "水泵", "振动"),
)


def vector_of(text: str) -> Vector:
    """How often each meaning stands in a text, and a little of nothing, so that none is zero."""
    found = [sum(len(re.findall(word, text.lower())) for word in row) for row in _MEANINGS]
    return unit([*map(float, found), 0.1])


class Embedder:
    """A deployment that embeds and ranks by ``vector_of``, served by a thread of this process."""

    def __init__(self, servers: SessionServers, task: Task = Task.EMBED) -> None:
        self.deployed = deploy(servers, unique("embedder"), task=task)
        self.asked: list[list[str]] = []
        self._url = servers.url("gateway")
        self._id = Deployment.objects.get(name=self.deployed.deployment).id
        self._ciphers = Ciphers(Keyring.parse(env().encryption_keys.get_secret_value()))

    @property
    def model(self) -> str:
        return self.deployed.model

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answers jobs for as long as this is open."""
        ended = threading.Event()
        thread = threading.Thread(target=self._serve, args=[ended], daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _serve(self, ended: threading.Event) -> None:
        with psycopg.connect(self._url, autocommit=True) as worker:
            while not ended.wait(0.01):
                for job in claim(worker, self._id, 10):
                    self._answer(worker, job)

    def _answer(self, worker: psycopg.Connection, job: Claimed) -> None:
        cipher = self._ciphers.of(job.tenant_id, job.data_key_version, job.data_key)
        prompt = unpack_prompt(cipher.decrypt(job.prompt, row_id=job.id))
        texts = [message.content for message in prompt.messages]
        self.asked.append(texts)
        assert prompt.extras is not None
        assert prompt.extras.embedding is not None
        vectors = [vector_of(text) for text in texts]
        if prompt.extras.embedding.kind == "rank":
            query, *documents = vectors
            vectors = [Vector("f", [dot(query, one) for one in documents])]
        answer = cipher.encrypt(pack_vectors(vectors).encode(), row_id=job.id)
        done = Settlement(
            job.id,
            JobState.RUNNING,
            JobState.SUCCEEDED,
            fence=job.fence,
            answer=base64.b64encode(answer).decode(),
            finish_reason="stop",
        )
        with worker.transaction():
            settle(worker, [done])


def hurry(tenant: Organisation) -> Sequence[tuple[UUID, int]]:
    """Makes the tenant's documents due that are under way: ids and states."""
    with tenant_scope(tenant.context):
        waiting = Document.objects.filter(state__in=UNDER_WAY)
        waiting.update(wake_at=timezone.now() - timedelta(seconds=1))
        return list(waiting.values_list("pk", "state"))


def step(tenant: Organisation) -> bool:
    """Takes one step of every document that is under way; whether any was."""
    found = hurry(tenant)
    for document_id, state in found:
        take = read_step if state == DocumentState.WAITING else embed_step
        take(tenant.id, document_id)
    return bool(found)


def index(tenant: Organisation) -> None:
    """Takes steps until nothing is under way."""
    while step(tenant):
        pass


def document_now(tenant: Organisation, document: Document) -> Document:
    """The document as it stands in the database."""
    with tenant_scope(tenant.context):
        return get_document(document.pk)
