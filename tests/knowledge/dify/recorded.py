"""Exchanges that were recorded on a running Dify 1.16.0, by name."""

import copy
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

FOLDER = Path(__file__).parent / "recordings"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_BATCH = re.compile(r"\d{20}")


@dataclass(frozen=True)
class Recorded:
    """One exchange; ``path`` is without its query."""

    name: str
    method: str
    path: str
    query: dict[str, str]
    request: dict[str, Any]
    status: int
    headers: dict[str, str]
    body: Any

    @property
    def route(self) -> tuple[str, str]:
        return self.method, template_of(self.path)

    @property
    def sent(self) -> Any:
        """The JSON that was sent, None if none was."""
        return self.request.get("json")


def template_of(path: str) -> str:
    """A path with its ids replaced: ``/v1/datasets/{id}``."""
    return _BATCH.sub("{batch}", UUID.sub("{id}", path))


@cache
def recordings() -> dict[str, Recorded]:
    """Every recording that the tests keep."""
    return {path.stem: _read(path) for path in sorted(FOLDER.glob("*.json"))}


def recorded(name: str) -> Recorded:
    return recordings()[name]


def body_of(name: str) -> Any:
    """A fresh copy of the body that Dify answered with."""
    return copy.deepcopy(recorded(name).body)


def _read(path: Path) -> Recorded:
    exchange = json.loads(path.read_text())
    request, response = exchange["request"], exchange["response"]
    parts = urlsplit(request["path"])
    return Recorded(
        path.stem,
        request["method"],
        parts.path,
        {name: values[0] for name, values in parse_qs(parts.query).items()},
        request,
        response["status"],
        dict(response["headers"]),
        response.get("json", response.get("sse_events", response.get("body"))),
    )
