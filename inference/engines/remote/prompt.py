"""Prompts for servers that take text alone, and read control tokens out of it.

A server's tokenizer makes control tokens of their spelling, whoever wrote it. Our prompts are token
ids in which a caller's ``<|im_start|>`` is ordinary text, so what they say as text must be read
back: where other control tokens would come of it, the request is refused.
"""

from tokenizers import Tokenizer

from inference.engines.base import GenerationRequest
from inference.engines.remote.faults import UpstreamFault


class TextPrompts:
    """Turns prompts into text for one artefact's model. ``tokenizer`` is kept for this alone."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = False
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._special = {token_id for token_id, token in added.items() if token.special}
        # What the server's tokenizer puts in front by itself.
        self._prefix = [i for i in tokenizer.encode("").ids if i in self._special]

    def text(self, request: GenerationRequest) -> str:
        """The prompt as text, without what the server adds.

        Raises:
            UpstreamFault: the text would be read as other control tokens.
        """
        ids = list(request.prompt_ids)
        size = len(self._prefix)
        if size and ids[:size] == self._prefix:
            ids = ids[size:]
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        read = self._tokenizer.encode(text, add_special_tokens=False).ids
        if self._control(read) != self._control(ids):
            raise UpstreamFault(
                "invalid_prompt",
                "The prompt holds the spelling of a control token, which this deployment's server"
                " can't take as text.",
            )
        return text

    def _control(self, ids: list[int]) -> list[int]:
        return [i for i in ids if i in self._special]
