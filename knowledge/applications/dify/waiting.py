"""An answer of an app in Dify in one piece, for who follows no event loop."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from knowledge.applications.backends import AppCall, Delta, Source, Sources
from knowledge.applications.dify.backend import Channels, DifyBackend, Target
from knowledge.applications.dify.faults import AppAway
from portal.core.errors import PortalError

LONGEST: Final = timedelta(minutes=10)

_TOO_LONG: Final = "Dify did not end its answer within ten minutes; look in its log."


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a call: the answer and what it rests on, or why there is none."""

    text: str = ""
    sources: Sequence[Source] = ()
    refusal: PortalError | None = None


def whole_answer(asked: AppCall, target: Target) -> Answered:
    """Calls the app and waits for its answer, ``LONGEST`` at most; outside any scope and loop."""
    try:
        return asyncio.run(_read(asked, target))
    except PortalError as refusal:
        return Answered(refusal=refusal)
    except TimeoutError:
        return Answered(refusal=AppAway(_TOO_LONG))


async def _read(asked: AppCall, target: Target) -> Answered:
    channels = Channels()
    text, sources = "", list[Source]()
    try:
        async with asyncio.timeout(LONGEST.total_seconds()):
            async for event in DifyBackend(channels, target).answer(asked):
                if isinstance(event, Delta):
                    text += event.text
                elif isinstance(event, Sources):
                    sources += event.sources
    finally:
        await channels.aclose()
    return Answered(text, sources)
