"""The garbage collector of a process that has started up and now serves."""

import gc
from typing import Final

# Requests make few cycles, and reference counting frees the rest at once.
_YOUNG_OBJECTS: Final = 20_000


def freeze_heap() -> None:
    """Takes what start-up has made out of every later collection.

    A full collection walks some hundred thousand objects of Django and its libraries, none of
    which ever goes away: a pause of up to a tenth of a second for every caller.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
