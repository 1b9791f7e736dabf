"""How full a server is, read from its Prometheus metrics.

Names: vLLM ``docs/usage/metrics.md``, SGLang ``docs/references/production_metrics.md``, llama.cpp
``tools/server/README.md`` (with ``--metrics``), TGI ``docs/source/reference/metrics.md``, Text
Embeddings Inference ``core/src/queue.rs``, Triton ``docs/user_guide/metrics.md``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_RUNNING = (
    "vllm:num_requests_running",
    "sglang:num_running_reqs",
    "llamacpp:requests_processing",
    "tgi_batch_current_size",
)
_WAITING = (
    "vllm:num_requests_waiting",
    "sglang:num_queue_reqs",
    "llamacpp:requests_deferred",
    "tgi_queue_size",
    "te_queue_size",
    "nv_inference_pending_request_count",
)
_USAGE = (
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "sglang:token_usage",
    "llamacpp:kv_cache_usage_ratio",
)
_CACHED = ("sglang:num_used_tokens", "llamacpp:kv_cache_tokens")
_ROOM = ("sglang:max_total_num_tokens",)


@dataclass(frozen=True, slots=True)
class Load:
    """A server's own figures, of all its callers; 0 where it doesn't tell.

    ``usage`` is the share of the key-value cache that is taken; the others are counts.
    """

    running: int = 0
    waiting: int = 0
    usage: float = 0.0
    cache_tokens: int = 0
    cached_tokens: int = 0


def read_load(text: str) -> Load:
    """The figures in a scrape; several processes or ranks of one server are added up.

    Raises:
        ValueError: no Prometheus text.
    """
    sums: dict[str, float] = {}
    shares: dict[str, float] = {}
    room = 0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.value != sample.value:  # NaN
                continue
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
            shares[sample.name] = max(shares.get(sample.name, 0.0), sample.value)
            room += _vllm_room(sample.name, sample.labels)
    usage = _first(shares, _USAGE)
    cache = room or int(_first(sums, _ROOM))
    cached = int(_first(sums, _CACHED)) or round(usage * cache)
    return Load(int(_first(sums, _RUNNING)), int(_first(sums, _WAITING)), usage, cache, cached)


def _vllm_room(name: str, labels: Mapping[str, str]) -> int:
    """Tokens of vLLM's cache: it tells its blocks as labels of an info metric."""
    if name != "vllm:cache_config_info":
        return 0
    try:
        return int(labels["num_gpu_blocks"]) * int(labels["block_size"])
    except (KeyError, ValueError):
        return 0


def _first(values: Mapping[str, float], names: tuple[str, ...]) -> float:
    return next((values[name] for name in names if name in values), 0.0)
