"""The marks that models write around their reasoning and their calls of tools."""

from typing import Final

THINK: Final = "<think>"
END_THINK: Final = "</think>"

HERMES_CALL: Final = "<tool_call>"
HERMES_END: Final = "</tool_call>"
MISTRAL_CALLS: Final = "[TOOL_CALLS]"
MISTRAL_ID: Final = "[CALL_ID]"
MISTRAL_ARGUMENTS: Final = "[ARGS]"
LLAMA_CALL: Final = "<|python_tag|>"
DEEPSEEK_CALLS: Final = "<｜tool▁calls▁begin｜>"  # noqa: RUF001 - DeepSeek's own spelling
DEEPSEEK_CALLS_END: Final = "<｜tool▁calls▁end｜>"  # noqa: RUF001
DEEPSEEK_CALL: Final = "<｜tool▁call▁begin｜>"  # noqa: RUF001
DEEPSEEK_CALL_END: Final = "<｜tool▁call▁end｜>"  # noqa: RUF001
DEEPSEEK_SEPARATOR: Final = "<｜tool▁sep｜>"  # noqa: RUF001

REASONING_MARKS: Final = frozenset({THINK, END_THINK})
TOOL_MARKS: Final = frozenset(
    {
        HERMES_CALL,
        HERMES_END,
        MISTRAL_CALLS,
        MISTRAL_ID,
        MISTRAL_ARGUMENTS,
        LLAMA_CALL,
        DEEPSEEK_CALLS,
        DEEPSEEK_CALLS_END,
        DEEPSEEK_CALL,
        DEEPSEEK_CALL_END,
        DEEPSEEK_SEPARATOR,
    }
)
