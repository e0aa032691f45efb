"""Messages to token ids, spelt out by declared family; the tokenizer's own chat template is not asked.

A family is a list of pieces: special tokens by name, and text. Text is encoded apart from the special tokens, so that a prompt
holding `<|eot_id|>` stays a prompt; and the prefill apart from the prompt, so that the prompt's ids are the same with and
without it. Exactly one BOS, except in the authors' `double_header`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from esr.errors import EngineError, SpecError, one_of
from esr.types import content_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMATS: Final = ("clean", "double_header")


class Special(str):
    """A special token's name; any other string is text."""

    __slots__ = ()


Pieces = list[str]
"""Specials and texts in order."""

LLAMA3_SYSTEM: Final = "\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
"""What the template puts before a chat without a system message; its date is fixed here and does not follow the clock."""


def _llama3(prompt: str) -> Pieces:
    begin, start, end, turn = map(Special, ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"))
    return [
        begin, start, "system", end, LLAMA3_SYSTEM, turn,
        start, "user", end, f"\n\n{prompt.strip()}", turn,
        start, "assistant", end, "\n\n",
    ]  # fmt: skip


def _gemma2(prompt: str) -> Pieces:
    begin, start, end = map(Special, ("<bos>", "<start_of_turn>", "<end_of_turn>"))
    return [begin, start, f"user\n{prompt.strip()}", end, "\n", start, "model\n"]


SMOLLM_SYSTEM: Final = "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What the template puts before a chat without a system message."""


def _smollm(prompt: str) -> Pieces:
    start, end = Special("<|im_start|>"), Special("<|im_end|>")
    return [start, SMOLLM_SYSTEM, end, "\n", start, f"user\n{prompt.strip()}", end, "\n", start, "assistant\n"]


def _tiny(prompt: str) -> Pieces:
    return [Special("<|bos|>"), Special("<|user|>"), prompt.strip(), Special("<|assistant|>")]


@dataclass(frozen=True, slots=True)
class Family:
    """How one family of models is spoken to."""

    turn: Callable[[str], Pieces]
    """From BOS to the place where the reply begins."""
    stops: tuple[str, ...]
    """Special tokens that end a reply."""
    second_header: tuple[str, ...] = ()
    """What the authors' wrapper put after the complete render: `double_header`."""


FAMILIES: Final[dict[str, Family]] = {
    "llama3": Family(
        _llama3, ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
        (Special("<|begin_of_text|>"), Special("<|start_header_id|>"), "assistant", Special("<|end_header_id|>")),
    ),
    "gemma2": Family(_gemma2, ("<eos>", "<end_of_turn>")),
    "smollm": Family(_smollm, ("<|endoftext|>", "<|im_end|>")),
    "tiny": Family(_tiny, ("<|end|>",)),
}  # fmt: skip


PROBE: Final = " a question\n"
"""Its edges tell whether a family strips what it is given."""


def rendering(family: str) -> str:
    """A digest of all that a family puts around a prompt, and of what ends its replies."""
    found = _family(family)
    pieces = [[isinstance(piece, Special), piece] for piece in found.turn(PROBE)]
    second = [[isinstance(piece, Special), piece] for piece in found.second_header]
    return content_id("rendering", pieces, second, list(found.stops), length=16)


def overhead(family: str) -> int:
    """At most so many tokens a family puts around a prompt, whatever the tokenizer: a special token is one, text has no more than bytes."""
    found = _family(family)
    pieces = [*found.turn(""), *found.second_header]
    return sum(1 if isinstance(piece, Special) else len(piece.encode()) for piece in pieces)


def _family(name: str) -> Family:
    if name not in FAMILIES:
        raise EngineError(one_of("family", name, list(FAMILIES), "esr.engine.chat"))
    return FAMILIES[name]


class Chat:
    """One family's rendering with one tokenizer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", family: str) -> None:
        self.family = _family(family)
        self.tokenizer = tokenizer
        self._name = family
        self.special_ids = frozenset(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
        self.stop_ids = tuple(self._special(name) for name in self.family.stops)

    def render(self, prompt: str, prompt_format: str = "clean", prefill: str | tuple[int, ...] = "") -> tuple[int, ...]:
        if prompt_format not in FORMATS:
            raise SpecError(one_of("prompt format", prompt_format, list(FORMATS), "esr.engine.chat"))
        if prompt_format == "double_header" and not self.family.second_header:
            raise SpecError(f"prompt format 'double_header' is the authors' Llama wrapper; family {self._name!r} has 'clean' only")
        pieces = self.family.turn(prompt)
        if prompt_format == "double_header":
            pieces = [*pieces, *self.family.second_header]
        ids = [i for piece in pieces for i in self._encode(piece)]
        return (*ids, *(self._encode(prefill) if isinstance(prefill, str) else prefill))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a reply, special tokens left out."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def offsets(self, token_ids: Sequence[int]) -> list[tuple[int, int]]:
        """[start, end) of each token in `decode(token_ids)`; tokens that share a character share its span.

        A special token has an empty span where it stands.
        """
        text = self.decode(token_ids)
        edges = [0]
        for i in range(len(token_ids)):
            edges.append(max(edges[-1], _agreeing(self.decode(token_ids[: i + 1]), text)))
        spans = []
        for i, token in enumerate(token_ids):
            start = edges[i]
            end = start if token in self.special_ids else next((edge for edge in edges[i + 1 :] if edge > start), start)
            spans.append((start, end))
        return spans

    def _encode(self, piece: str) -> list[int]:
        if isinstance(piece, Special):
            return [self._special(piece)]
        ids: list[int] = self.tokenizer.encode(piece, add_special_tokens=False, split_special_tokens=True) if piece else []
        return ids

    def _special(self, name: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(name)
        if not isinstance(found, int) or self.tokenizer.convert_ids_to_tokens(found) != name:
            raise EngineError(
                f"the tokenizer has no special token {str(name)!r}, which family {self._name!r} is made of; correct the family in params.yaml"
            )
        return found


def _agreeing(part: str, whole: str) -> int:
    """Length of `part` as far as it begins `whole`; a character cut in two does not count."""
    if whole.startswith(part):
        return len(part)
    while part.endswith("\ufffd"):
        part = part[:-1]
    return len(part) if whole.startswith(part) else 0
