"""Fixtures of webhooks."""

from collections.abc import Iterator

import pytest

from tests.factories import Organisation
from tests.inference.bench import Bench
from tests.inference.webhooks.hooks import Hooks
from tests.inference.webhooks.receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def hooks(bench: Bench, tenant_a: Organisation) -> Hooks:
    """A tenant with a signing secret, whose jobs have callbacks."""
    return Hooks(bench, tenant_a)
