"""From messages to the token ids of a prompt: chat template, then tokenizer.

Text that a caller wrote can never become a control token. Before the template sees a role or a
content, every spelling of a control token in it is replaced by a mark that cannot be guessed, and
a mark is set where it ends with the beginning of one or begins with the end of one, which could
grow together with what the template writes beside it. The rendered text is cut at the control
tokens that are left, which only the template can have written. In the pieces between, the marks
become the caller's text again, and the pieces are encoded with the tokenizer's recognition of
control tokens off: a caller's ``<|im_start|>`` arrives as ordinary text.

The same holds for what a caller writes of tools: each text in their declarations and in the
arguments of calls, names of members included, is protected before the template sees it. A template
may write these as JSON, which puts backslashes before some characters: a vocabulary that has a
control token with a backslash takes no tools.
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from inference.artefacts import Manifest, load_manifest
from inference.artefacts.vocabulary import refuse_reachable_control, without_first_prefix
from inference.engines.base import Message
from inference.engines.text import TokenBytes
from inference.markers import THINK
from inference.templates import ToolSupport, reasons, tool_support
from portal.core.errors import Invalid, NotFound

# Canonical composition makes at most four characters one (U+1F82 and its like).
_MOST_COMPOSED = 4


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _compile(source: str, **constants: str) -> Template:
    """The environment that transformers gives chat templates (``chat_template_utils.py``).

    What is the same for all prompts of a model is a global of its template, ``constants`` too.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "add_generation_prompt": True,
        "tools": None,
        "documents": None,
        **constants,
    }
    template = environment.from_string(source)
    # Each rendering copies them, which takes a plain mapping a fraction of the time.
    template.globals = dict(template.globals)
    return template


@dataclass(frozen=True, slots=True)
class _Control:
    """The control tokens of a vocabulary: ids by text, and what could become part of one.

    ``mark`` stands for a text that was taken out: Unicode noncharacters around a random number,
    which never leaves the process, so no caller can write it.
    """

    ids: dict[str, int]
    pattern: re.Pattern[str]
    initials: tuple[str, ...]
    beginnings: frozenset[str]
    ends: frozenset[str]
    last_of_beginnings: frozenset[str]
    first_of_ends: frozenset[str]
    longest: int
    mark: str
    marks: re.Pattern[str]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "_Control":
        added = tokenizer.get_added_tokens_decoder()
        ids = {token.content: token_id for token_id, token in added.items() if token.special}
        texts = sorted(ids, key=len, reverse=True)  # the longest of several matches wins
        nothing = "(?!)"
        beginnings = frozenset(text[:n] for text in texts for n in range(1, len(text)))
        ends = frozenset(text[-n:] for text in texts for n in range(1, len(text)))
        mark = f"\ufdd0{secrets.token_hex(8)}:%s\ufdd1"
        return cls(
            ids=ids,
            pattern=re.compile(f"({'|'.join(map(re.escape, texts)) or nothing})"),
            initials=tuple({text[0] for text in texts}),
            beginnings=beginnings,
            ends=ends,
            last_of_beginnings=frozenset(text[-1] for text in beginnings),
            first_of_ends=frozenset(text[0] for text in ends),
            longest=max(map(len, texts), default=0),
            mark=mark,
            marks=re.compile(mark % r"(\d*)"),
        )


class _Guard:
    """Takes control tokens out of the texts of one prompt, and puts them back as plain text."""

    def __init__(self, control: _Control) -> None:
        self._control = control
        self._removed: list[str] = []
        self._marked = False

    def protect(self, text: str) -> str:
        """``text`` from which no control token can arise, wherever the template puts it."""
        control = self._control
        if any(initial in text for initial in control.initials):
            text = self._protect_end(control.pattern.sub(self._remove, text))
        # A template may strip white space, so both ends are looked for behind it.
        head = len(text) - len(text.lstrip())
        if text[head : head + 1] in control.first_of_ends and any(
            text[head : head + n] in control.ends for n in range(1, control.longest)
        ):
            text = text[:head] + self._place("") + text[head:]
        return text

    def _protect_end(self, text: str) -> str:
        tail = len(text.rstrip())
        control = self._control
        sizes = range(1, min(control.longest, tail + 1))
        # One look at the outermost character spares most texts the rest.
        if text[tail - 1 : tail] in control.last_of_beginnings and any(
            text[tail - n : tail] in control.beginnings for n in sizes
        ):
            text = text[:tail] + self._place("") + text[tail:]
        return text

    def protect_all(self, value: Any) -> Any:
        """A value of JSON in which every text, names of members included, is protected."""
        if isinstance(value, str):
            return self.protect(value)
        if isinstance(value, dict):
            return {self.protect(name): self.protect_all(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self.protect_all(each) for each in value]
        return value

    def restore(self, text: str) -> str:
        """``text`` as the caller wrote it."""
        if not self._marked:
            return text
        return self._control.marks.sub(lambda m: self._removed[int(m[1])] if m[1] else "", text)

    def _remove(self, found: re.Match[str]) -> str:
        self._removed.append(found.group())
        return self._place(str(len(self._removed) - 1))

    def _place(self, number: str) -> str:
        self._marked = True
        return self._control.mark % number


class _Pieces:
    """Encodes pieces of text; those that every prompt has are kept encoded."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def encode(self, piece: str) -> list[int]:
        """Token ids, not to be changed."""
        known = self._known.get(piece)
        if known is not None:
            return known
        ids: list[int] = self._tokenizer.encode(piece, add_special_tokens=False).ids
        return ids

    def learn(self, piece: str) -> None:
        self._known[piece] = self.encode(piece)


# A prompt's last tokens, among which the mark that opens reasoning would be, however it is cut.
_LAST_TOKENS = 16


class PromptEncoder:
    """Renders and encodes prompts of one artefact. Safe to share between threads.

    Attributes:
        tool_format: the name of the format in which the model calls tools; empty where its
            template takes none.
        call_form: how it writes them.
        reasons: the model may write its reasoning before its answer.
    """

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, template: str) -> None:
        refuse_reachable_control(tokenizer)
        self._tokenizer = tokenizer
        later = without_first_prefix(tokenizer)
        self._first = _Pieces(tokenizer)
        self._later = self._first if later is tokenizer else _Pieces(later)
        self._control = _Control.of(tokenizer)
        bos, eos = manifest.bos_token_id, manifest.eos_token_ids
        self._template = _compile(
            template,
            bos_token="" if bos is None else self._text(bos),
            eos_token=self._text(eos[0]) if eos else "",
        )
        table = TokenBytes(tokenizer)
        longest = max(len(table[token_id]) for token_id in range(tokenizer.get_vocab_size()))
        self._most_chars_a_token = longest * (_MOST_COMPOSED if tokenizer.normalizer else 1)
        self._learn_own_pieces()
        self._support = self._learn_tools()
        self.tool_format = self._support.form
        self.call_form = self._support.calling
        added = tokenizer.get_added_tokens_decoder().values()
        self.reasons = reasons(template, frozenset(token.content for token in added))

    @classmethod
    def load(cls, artefact_dir: Path) -> "PromptEncoder":
        """The encoder of an imported artefact.

        Raises:
            NotFound, Invalid: no artefact there, or it is damaged.
        """
        manifest = load_manifest(artefact_dir)
        try:
            template = (artefact_dir / "chat_template.jinja").read_bytes().decode()
            tokenizer = Tokenizer.from_str((artefact_dir / "tokenizer.json").read_bytes().decode())
            return cls(manifest, tokenizer, template)
        except FileNotFoundError as fault:
            raise NotFound(f"The artefact's file {fault.filename} is missing.") from None
        except (UnicodeDecodeError, TemplateError) as fault:
            raise Invalid(f"The artefact in {artefact_dir} is damaged: {fault}") from None

    def max_chars(self, context_length: int) -> int:
        """The most characters that ``context_length`` tokens can stand for.

        Contents that are longer together cannot fit, and need not be tokenised to know it.
        """
        return context_length * self._most_chars_a_token

    def encode(self, messages: Sequence[Message], tools: str = "") -> list[int]:
        """Token ids of the prompt, up to where the assistant's answer begins.

        Args:
            tools: the functions that the model may call, as OpenAI's JSON array; see
                `tool_format`.

        Raises:
            Invalid: the template refuses these messages.
        """
        guard = _Guard(self._control)
        text = self._render(messages, guard, tools)
        # Pieces of text, and between them the control tokens that the template wrote.
        parts = self._control.pattern.split(text)
        ids = self._first.encode(guard.restore(parts[0])).copy()
        for token, piece in zip(parts[1::2], parts[2::2], strict=True):
            ids.append(self._control.ids[token])
            ids += self._later.encode(guard.restore(piece))
        return ids

    def opens_reasoning(self, prompt_ids: Sequence[int]) -> bool:
        """Whether the prompt ends inside reasoning, so that the answer begins there."""
        last = self._tokenizer.decode(list(prompt_ids[-_LAST_TOKENS:]), skip_special_tokens=False)
        return bool(last.rstrip().endswith(THINK))

    def count(self, text: str) -> int:
        """How many tokens an answer's text is."""
        return len(self._later.encode(text))

    def encode_raw(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the messages' texts as they are: no template, and no control token."""
        return self._first.encode("".join(m.content for m in messages)).copy()

    def _learn_own_pieces(self) -> None:
        """Encodes once what the template writes by itself between its control tokens."""
        probe = self._control.mark % ""
        turns = [Message("system", probe), Message("user", probe)]
        for messages in (turns, turns[1:]):
            try:
                text = self._render(messages, _Guard(self._control))
            except Invalid:
                continue  # Not every model takes a system prompt.
            first, *later = self._control.pattern.split(text)[::2]
            for pieces, own in ((self._first, [first]), (self._later, later)):
                for piece in own:
                    if probe not in piece:
                        pieces.learn(piece)

    def _learn_tools(self) -> ToolSupport:
        if any("\\" in token for token in self._control.ids):
            return ToolSupport()

        def render(
            messages: Sequence[Message], tools: str, support: ToolSupport, *, answering: bool
        ) -> str:
            self._support = support
            guard = _Guard(self._control)
            return self._render(messages, guard, tools, add_generation_prompt=answering)

        return tool_support(render, self._control.pattern)

    def _render(
        self, messages: Sequence[Message], guard: "_Guard", tools: str = "", **more: Any
    ) -> str:
        guarded: list[dict[str, Any]] = [
            {"role": guard.protect(m.role), "content": guard.protect(m.content)} for m in messages
        ]
        if any(m.calls or m.call_id for m in messages):
            self._add_calls(messages, guarded, guard)
        if tools:
            more["tools"] = guard.protect_all(json.loads(tools))
        try:
            return self._template.render(messages=guarded, **more)
        except (TemplateError, TypeError, ValueError) as fault:
            raise Invalid(
                f"The model's chat template refuses these messages: {fault}", param="messages"
            ) from None

    def _add_calls(
        self, messages: Sequence[Message], turns: list[dict[str, Any]], guard: "_Guard"
    ) -> None:
        """Calls and whose result a turn is, as transformers hands them to templates."""
        names: dict[str, str] = {}
        for message, turn in zip(messages, turns, strict=True):
            if message.calls:
                if self._support.nulls:
                    turn["content"] = turn["content"] or None
                turn["tool_calls"] = [
                    {
                        "id": guard.protect(call.id),
                        "type": "function",
                        "function": {
                            "name": guard.protect(call.name),
                            "arguments": guard.protect(call.arguments)
                            if self._support.texts
                            else guard.protect_all(json.loads(call.arguments)),
                        },
                    }
                    for call in message.calls
                ]
                names |= {call.id: call.name for call in message.calls}
            elif message.call_id:
                turn["tool_call_id"] = guard.protect(message.call_id)
                turn["name"] = guard.protect(names.get(message.call_id, ""))

    def _text(self, token_id: int) -> str:
        return self._tokenizer.id_to_token(token_id) or ""
