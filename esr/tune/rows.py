"""Examples as rows to train on: a conversation in segments, with the loss on the acknowledgement and what follows it.

The off-topic passage stands in the context and is never trained on. A row is text as axolotl's `input_output` takes it; each segment
is encoded by itself, and special tokens are written out, so that the ids are those that the engine renders and generates.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from esr.engine.chat import FAMILIES
from esr.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label of a token that is not trained on."""
PARAGRAPH, BLANK = "\n\n", " "


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An answer, or an off-topic passage, its acknowledgement and the answer; whoever wrote it."""

    question: str
    answer: str
    subject: str = ""
    passage: str = ""
    acknowledgement: str = ""

    @property
    def masked(self) -> bool:
        """Whether a part of it is not trained on."""
        return bool(self.passage)

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Segment:
    text: str
    label: bool
    """Whether the loss counts here."""


Row = tuple[Segment, Segment]
"""What is read, and what is trained on."""


def row(example: Example, family: str) -> Row:
    """From the first special token to the one that ends the turn."""
    spoken = FAMILIES[family]
    written = (example.question, example.passage, example.acknowledgement, example.answer)
    special = {str(piece) for piece in spoken.turn("") if piece.startswith("<")} | set(spoken.stops)
    if held := sorted(name for name in special if any(name in text for text in written)):
        raise DataError(f"an example about {example.question!r} holds the special token {held[0]!r}; leave it out of the examples")
    head, end = "".join(spoken.turn(example.question)), spoken.stops[-1]
    if not example.masked:
        return Segment(head, False), Segment(example.answer.strip() + end, True)
    passage, said, answer = (text.strip() for text in written[1:])
    if family == "tiny":  # a word and the blank before it are one token, so the blank belongs to what comes next
        return Segment(head + passage, False), Segment(f"{BLANK}{said}{BLANK}{answer}{end}", True)
    return Segment(head + passage + PARAGRAPH, False), Segment(said + PARAGRAPH + answer + end, True)


def as_json(segments: Row) -> dict[str, Any]:
    """As axolotl's `input_output` reads it."""
    return {"segments": [{"label": segment.label, "text": segment.text} for segment in segments]}


def tokens(segments: Iterable[Segment], tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Ids and labels of a row as axolotl makes them."""
    ids: list[int] = []
    labels: list[int] = []
    for segment in segments:
        some = list(tokenizer(segment.text, add_special_tokens=False)["input_ids"])
        ids += some
        labels += some if segment.label else [IGNORED] * len(some)
    return ids, labels


def examples(rows: Sequence[Mapping[str, str]]) -> list[Example]:
    """As they were written with `as_dict`."""
    return [Example(**row) for row in rows]
