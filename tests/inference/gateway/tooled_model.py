"""What the tests' model with tools says: it thinks aloud, and calls in the format of Hermes."""

from typing import Any

THOUGHT = "They want the weather."
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
ARGUMENTS = '{"city": "Rome"}'
"""Of a call that is forced."""

SAID = "It is 18 degrees."
ANSWERS = {
    "the weather": f"{THOUGHT}\n</think>\n\nLet me look.\n{CALL}\n{CALL}",
    "broken": 'Hm.</think><tool_call>{"name": "f", "arguments": {"a": tru!}}</tool_call> Sorry.',
    "18 degrees": f"Easy.\n</think>\n\n{SAID}",
}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "Looks up.", "parameters": PARAMETERS}
TOOLS: list[Any] = [{"type": "function", "function": FUNCTION}]
ASK: list[Any] = [{"role": "user", "content": "How is the weather?"}]
WHOLE = len(ANSWERS["the weather"])
