"""Start-time fair queueing: by which numbers waiting jobs are ordered.

What a tenant sends a deployment in one class of priority is a flow of its own. A flow's virtual
time runs ahead by what it has been admitted, divided by its weight; a job's start tag is where its
flow stood, or the deployment's clock where the flow was idle. Smaller tags are served first, so
busy flows share a deployment by their weights and none waits for ever.

Source: P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queueing", SIGCOMM 1996.
"""

from typing import Final

VIRTUAL_UNIT: Final = 1000
"""Virtual time of one token of an interactive flow of weight 1; integers keep the order exact."""

STRETCH: Final = (1, 4, 16)
"""How much virtual time a token costs in each class of ``Priority``, as a multiple of what it costs
interactively: the classes of one tenant share by 16 : 4 : 1 where all of them are busy."""

# The last bits of a tag are its class: of equal tags the more urgent one is served first, so a
# flow that was idle begins ahead of every less urgent one, however many of those begin with it.
_CLASS_BITS: Final = 3


def start_tag(at: int, priority: int) -> int:
    """The tag of a job whose flow stands at the virtual time ``at``."""
    return at & ~_CLASS_BITS | priority


def earliest_tag(tag: int) -> int:
    """The least tag of any class at the virtual time of ``tag``."""
    return tag & ~_CLASS_BITS


def virtual_cost(tokens: int, weight: int, priority: int) -> int:
    """Virtual time that so many reserved tokens cost a flow of a tenant of that weight."""
    return max(1, tokens * VIRTUAL_UNIT * STRETCH[priority] // weight)


def flow_weight(weight: int, priority: int) -> float:
    """The weight of a tenant's flow among all others; exact, for stretches are powers of two."""
    return weight / STRETCH[priority]


FLOW_WEIGHT_SQL: Final = (
    "{weight} / (CASE {priority} "
    + " ".join(f"WHEN {priority} THEN {of}" for priority, of in enumerate(STRETCH))
    + " END)::float8"
)
"""``flow_weight`` as an expression; ``{weight}`` and ``{priority}`` are to be named."""

EARLIEST_TAG_SQL: Final = f"({{tag}} & ~{_CLASS_BITS}::bigint)"
"""``earliest_tag`` as an expression; ``{tag}`` is to be named."""
