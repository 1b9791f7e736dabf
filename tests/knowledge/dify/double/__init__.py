"""A double of Dify 1.16.0: a real HTTP server with a state, no kinder than Dify is.

Its answers are made from recordings, and ``test_contract.py`` holds every route of it against them.
"""

from tests.knowledge.dify.double.server import DifyDouble, Fault

__all__ = ["DifyDouble", "Fault"]
