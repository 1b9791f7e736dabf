"""One workspace of one Dify: its console and its knowledge behind one channel."""

from types import TracebackType
from typing import Any, Self

from knowledge.dify.app_api import AppApi
from knowledge.dify.channel import Channel, Endpoint, open_channel
from knowledge.dify.console_api import ConsoleApi
from knowledge.dify.knowledge_api import KnowledgeApi


class Dify:
    """The client that connections, and what keeps knowledge in step, call.

    Not shared among threads; close it, or use it in ``with``.

    Attributes:
        console, knowledge: the two APIs.
        endpoint: where it is, and its keys.
    """

    def __init__(self, endpoint: Endpoint, channel: Channel | None = None, **options: Any) -> None:
        self.endpoint = endpoint
        self._channel = channel or open_channel(endpoint.base_url, **options)
        self.console = ConsoleApi(self._channel, endpoint.console_key, endpoint.workspace_id)
        self.knowledge = KnowledgeApi(self._channel, endpoint.dataset_key)

    @property
    def version(self) -> str:
        """``X-Version`` of the newest answer, such as ``1.16.0``; empty before the first."""
        return self._channel.version

    def app(self, key: str) -> AppApi:
        """One of its apps, by a key of that app."""
        return AppApi(self._channel, key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()
