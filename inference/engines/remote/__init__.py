"""What the adapters to serving engines that run elsewhere share.

``engine`` keeps the promises of ``inference.engines.base`` once; an adapter says how its server is
asked and how its answer is read. ``answer`` turns a server's chunks into counted events.
"""

from inference.engines.remote.answer import Chunk
from inference.engines.remote.engine import RemoteEngine
from inference.engines.remote.faults import UpstreamFault
from inference.engines.remote.options import RemoteOptions

__all__ = ["Chunk", "RemoteEngine", "RemoteOptions", "UpstreamFault"]
