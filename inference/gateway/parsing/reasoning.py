"""Parts what a model thinks, between ``<think>`` and ``</think>``, from what it answers."""

from inference.markers import END_THINK, THINK


class ReasoningReader:
    """Reads one answer; each piece comes out as reasoning and rest.

    White space around the reasoning is no part of it.

    Args:
        opened: the prompt has opened the reasoning already.
    """

    def __init__(self, *, opened: bool) -> None:
        self._opened = opened
        self._state = "before"
        self._held = ""

    def push(self, text: str) -> tuple[str, str]:
        """Reasoning and answer that ``text`` makes known."""
        if self._state == "over":
            return "", text
        self._held += text
        reasoning = ""
        if self._state == "before":
            self._enter()
        if self._state == "blank":
            self._held = self._held.lstrip()
            if self._held:
                self._state = "inside"
        if self._state == "inside":
            reasoning = self._more()
        return reasoning, self._rest()

    def finish(self) -> tuple[str, str]:
        """What was held back."""
        held, self._held = self._held, ""
        inside = self._state == "inside" or (self._state == "before" and self._opened)
        return (held.strip(), "") if inside else ("", held)

    def _enter(self) -> None:
        text = self._held.lstrip()
        if text.startswith(THINK):
            self._state, self._held = "blank", text[len(THINK) :]
        elif text and not THINK.startswith(text):
            # A model whose prompt has opened the reasoning may open it once more, or not.
            self._state = "blank" if self._opened else "answer"

    def _more(self) -> str:
        text = self._held
        end = text.find(END_THINK)
        if end >= 0:
            self._state, self._held = "after", text[end + len(END_THINK) :]
            return text[:end].rstrip()
        size = next(n for n in range(len(END_THINK) - 1, -1, -1) if text.endswith(END_THINK[:n]))
        shown = text[: len(text) - size].rstrip()
        self._held = text[len(shown) :]
        return shown

    def _rest(self) -> str:
        if self._state == "after":
            self._held = self._held.lstrip()
            if self._held:
                self._state = "answer"
        if self._state != "answer":
            return ""
        self._state = "over"
        held, self._held = self._held, ""
        return held
