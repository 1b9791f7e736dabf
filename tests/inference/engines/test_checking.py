"""Options of a deployment whose engine is chosen on its worker's machine."""

from typing import Any

import pytest

from inference.engines.checking import check_options
from portal.core.errors import Invalid


@pytest.mark.parametrize(
    ("options", "model_format"),
    [
        ({}, "gguf"),
        ({"cache_mb": 64, "slots": 2}, "gguf"),
        # Each of them is of one of the two.
        ({"tensor_parallel": 2, "prefill_tokens": 64}, "safetensors"),
        ({"tensor_parallel": 2}, ""),
    ],
)
def test_check_options_of_auto_that_some_engine_has_passes(
    options: dict[str, Any], model_format: str
) -> None:
    check_options("auto", options, model_format=model_format)


@pytest.mark.parametrize(
    ("options", "model_format", "named"),
    [
        ({"tensor_parallel": 2}, "gguf", "openvino.*`tensor_parallel`"),
        ({"tensor_parallel": 2, "family": "vllm"}, "safetensors", "vllm, torch_batch.*`family`"),
        ({"prefill_tokens": 0}, "safetensors", "torch_batch.*prefill_tokens"),
        ({"tensor_parallel": "two"}, "safetensors", "vllm.*tensor_parallel"),
    ],
)
def test_check_options_of_auto_that_none_has_or_one_refuses_names_it(
    options: dict[str, Any], model_format: str, named: str
) -> None:
    with pytest.raises(Invalid, match=named) as caught:
        check_options("auto", options, model_format=model_format)
    assert caught.value.param == "options"
