"""A Dify to call."""

from collections.abc import Iterator

import pytest

from knowledge.dify.channel import Endpoint
from tests.knowledge.dify.double import DifyDouble


@pytest.fixture
def dify() -> Iterator[DifyDouble]:
    """A fresh double."""
    with DifyDouble() as double:
        yield double


@pytest.fixture
def endpoint(dify: DifyDouble) -> Endpoint:
    """Its first workspace, with keys that work."""
    return Endpoint(dify.url, dify.own.id, dify.console_key, dify.dataset_key)
