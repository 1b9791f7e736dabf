"""What a worker gathers of an answer that is more than a text."""

from inference.choices import ChoiceAnswer, encode_choices
from inference.engines.base import Done, Token, TokenLogprob
from inference.worker.choices import ChoiceDone, ChoiceToken


class DetailedAnswer:
    """The choices of one job, as far as they have come."""

    def __init__(self, n: int) -> None:
        self._texts: list[list[str]] = [[] for _ in range(n)]
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in range(n)]
        self._reasons: list[str | None] = [None] * n

    def add(self, token: Token) -> None:
        choice = choice_of(token)
        self._texts[choice].append(token.text)
        self._logprobs[choice] += token.logprobs

    def end(self, ended: ChoiceDone) -> None:
        self._reasons[ended.choice] = ended.reason

    def document(self, ending: Done) -> str:
        """The whole answer; a job of one choice ends with it."""
        return encode_choices(
            [
                ChoiceAnswer("".join(texts), reason or ending.reason, tuple(logprobs))
                for texts, reason, logprobs in zip(
                    self._texts, self._reasons, self._logprobs, strict=True
                )
            ]
        )


def choice_of(token: Token) -> int:
    """Which choice a text belongs to."""
    return token.choice if isinstance(token, ChoiceToken) else 0
