"""``/v1/batches``: made, read, listed and cancelled here; run by the io workers."""

from typing import Final

import msgspec
from starlette.routing import Route

from inference.gateway.calls import CANCEL_BATCH, CREATE_BATCH, LIST_BATCHES, READ_BATCH
from inference.gateway.core import Gateway
from inference.gateway.endpoint import ByMethod, Done, Recorded, answer_json
from inference.gateway.keys import KeyFacts
from inference.gateway.requests import Arrival, Receive, Scope, read_body
from inference.gateway.wire.batches import BatchFacts, batch_object, parse_batch
from inference.gateway.wire.objects import (
    BATCH,
    batch_name,
    file_name,
    listing,
    parse_name,
    parse_page,
)

_LISTED: Final = 20
_MOST_LISTED: Final = 100


class CreateBatch(Recorded):
    method = "POST"
    action = CREATE_BATCH

    async def act(self, key: KeyFacts, scope: Scope, arrived: Arrival, receive: Receive) -> Done:
        body = await read_body(arrived, receive, self._gateway.max_body_bytes)
        facts = await self._gateway.batches.create(key, parse_batch(body))
        return _done(facts, {"input_file": file_name(facts.input_file_id)})


class ListBatches(Recorded):
    method = "GET"
    action = LIST_BATCHES

    async def act(self, key: KeyFacts, scope: Scope, arrived: Arrival, receive: Receive) -> Done:
        page = parse_page(
            scope["query_string"], BATCH, default=_LISTED, most=_MOST_LISTED, filters=set()
        )
        found, more = await self._gateway.batches.page(key, page)
        return Done(answer_json(listing([batch_object(f) for f in found], more=more)))


class ReadBatch(Recorded):
    method = "GET"
    action = READ_BATCH

    async def act(self, key: KeyFacts, scope: Scope, arrived: Arrival, receive: Receive) -> Done:
        batch_id = parse_name(BATCH, scope["path_params"]["batch"])
        return _done(await self._gateway.batches.find(key, batch_id))


class CancelBatch(Recorded):
    method = "POST"
    action = CANCEL_BATCH

    async def act(self, key: KeyFacts, scope: Scope, arrived: Arrival, receive: Receive) -> Done:
        batch_id = parse_name(BATCH, scope["path_params"]["batch"])
        return _done(await self._gateway.batches.cancel(key, batch_id))


def _done(facts: BatchFacts, more: dict[str, str] | None = None) -> Done:
    body = msgspec.json.encode(batch_object(facts))
    return Done(answer_json(body), {"batch": batch_name(facts.id), **(more or {})})


def batch_routes(gateway: Gateway) -> list[Route]:
    """The routes of batches."""
    return [
        Route("/v1/batches", ByMethod(gateway, CreateBatch, ListBatches), methods=None),
        Route("/v1/batches/{batch}", ReadBatch(gateway), methods=None),
        Route("/v1/batches/{batch}/cancel", CancelBatch(gateway), methods=None),
    ]
