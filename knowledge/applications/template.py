"""Prompt templates: texts with places such as ``{{query}}``, which are filled once.

What is filled in is never read as a template again, so nothing that a user writes can name a
place, whatever it looks like.
"""

import re
from collections.abc import Mapping
from typing import Final

CONTEXT: Final = "context"
QUERY: Final = "query"
_PLACE: Final = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


def places_of(template: str) -> frozenset[str]:
    """The names of a template's places."""
    return frozenset(_PLACE.findall(template))


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with each place's text; a place without a text stays as it stands."""
    return _PLACE.sub(lambda place: values.get(place[1], place[0]), template)
