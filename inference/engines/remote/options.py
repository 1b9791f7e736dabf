"""What every adapter can be told, and where its server's key comes from."""

from typing import Annotated

import msgspec

from portal.core.env import env
from portal.core.errors import Invalid

_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class RemoteOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of every adapter; all times are in seconds.

    Args:
        url: where the server is, without ``/v1`` or ``/v2``: ``http://gpu-1:8000``.
        key_name: which of ``UPSTREAM_API_KEYS`` to send; empty sends none.
        concurrency: requests that are sent at once; more wait here.
        connect_seconds: most time for a connection.
        first_token_seconds: most time from sending a request to its first token.
        between_tokens_seconds: most time between two tokens.
        busy_seconds: how long a request that the server puts off (429, 503) is tried again.
        ready_seconds: how long ``load`` waits for the server.
        poll_seconds: how often health and metrics are read; 0 reads none.
        metrics_url: where Prometheus metrics are, if not at the server's ``/metrics``.
        ca_file: certificate authorities in PEM for ``https``; empty takes the usual ones.
    """

    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s?#@]+$")]
    key_name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{0,40}$")] = ""
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64
    connect_seconds: _Seconds = 5.0
    first_token_seconds: _Seconds = 300.0
    between_tokens_seconds: _Seconds = 60.0
    busy_seconds: Annotated[float, msgspec.Meta(ge=0)] = 20.0
    ready_seconds: _Seconds = 600.0
    poll_seconds: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    metrics_url: Annotated[str, msgspec.Meta(pattern=r"^(https?://[^\s?#@]+)?$")] = ""
    ca_file: str = ""


def server_key(name: str) -> str:
    """The key of that name in ``UPSTREAM_API_KEYS``; empty for no name.

    Raises:
        Invalid: the setting has no such name.
    """
    if not name:
        return ""
    pairs = env().upstream_api_keys.get_secret_value().replace("\n", ",").split(",")
    keys = dict(pair.strip().split(":", 1) for pair in pairs if ":" in pair)
    if name not in keys:
        raise Invalid(
            f"UPSTREAM_API_KEYS has no key named {name!r}; add it where the worker runs.",
            param="options",
        )
    return keys[name]
