"""The graph of a workflow in Dify: nodes in a row, as its editor draws them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

CHAT_ANSWER: Final[Mapping[str, Any]] = {"answer": "{{#llm.text#}}", "variables": []}
_STEP: Final = 300


@dataclass(frozen=True, slots=True)
class Node:
    """One node.

    Attributes:
        data: what it does, beside its kind and title.
    """

    id: str
    kind: str
    title: str
    data: Mapping[str, Any]


def graph_of(nodes: Sequence[Node]) -> dict[str, Any]:
    """The nodes, each of them followed by the next."""
    return {
        "viewport": {"x": 0, "y": 0, "zoom": 1},
        "edges": [_edge(source, target) for source, target in pairwise(nodes)],
        "nodes": [_drawn(node, place) for place, node in enumerate(nodes)],
    }


def _edge(source: Node, target: Node) -> dict[str, Any]:
    return {
        "id": f"{source.id}-{target.id}",
        "source": source.id,
        "sourceHandle": "source",
        "target": target.id,
        "targetHandle": "target",
        "type": "custom",
        "zIndex": 0,
        "data": {
            "sourceType": source.kind,
            "targetType": target.kind,
            "isInIteration": False,
            "isInLoop": False,
        },
    }


def _drawn(node: Node, place: int) -> dict[str, Any]:
    return {
        "id": node.id,
        "type": "custom",
        "position": _position(place),
        "positionAbsolute": _position(place),
        "sourcePosition": "right",
        "targetPosition": "left",
        "width": 244,
        "height": 90,
        "data": {
            "desc": "",
            "selected": False,
            "title": node.title,
            "type": node.kind,
            **node.data,
        },
    }


def _position(place: int) -> dict[str, int]:
    return {"x": 30 + _STEP * place, "y": 200}
