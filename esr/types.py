"""The nouns of the instrument: values that never change, with their formulas.

Identity is content: `Trial.id` hashes every field that determines the reply, so two experiments that want the same
generation get the same row, and a changed field is another trial.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from esr.errors import DataError

__all__ = [
    "BASELINE", "BLIND", "Arm", "Attempt", "Grade", "Latent", "Member", "Op", "Reply", "Sampling", "Scope", "Trial", "content_id", "meant",
    "replace",
]  # fmt: skip

type_of_op = Literal["add", "clamp", "project_out", "clamp_projection", "add_norm"]
BLIND = -1
"""The latent of a grade whose judge was told of none, and of a trial that has none."""
Scope = str
"""Which positions an intervention touches: `all`, `prompt`, `generated`, `[lo,hi)` in absolute positions, …: esr/engine/scope.py."""


def content_id(*parts: object, length: int = 32) -> str:
    """sha256 over canonical JSON (sorted keys, shortest floats), cut to `length` hex digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True, slots=True, order=True)
class Latent:
    """One SAE latent."""

    index: int
    """Row of the decoder, 0-based."""
    label: str = ""
    """What it is said to stand for; empty when nobody has said."""


@dataclass(frozen=True, slots=True, order=True)
class Op:
    """One intervention on the residual stream after block `layer`, with h the stream before any intervention.

    add:   h ← h + value · W_dec[latent]
    clamp: h ← h + (value − f_latent(h)) · W_dec[latent], the reconstruction error kept
    and, with u the direction W_dec[latent] at length 1:
    project_out: h ← h − value · (h · u) u · clamp_projection: h ← h + (value − h · u) u · add_norm: h ← h + value · ‖h‖ u
    Ops of one request act at once on the same h; add and clamp of one latent sum.
    """

    kind: type_of_op
    latent: int
    value: float
    layer: int
    """Decoder block whose output is changed, 0-based."""
    sae: str
    """Name in params.yaml's `saes`; whose rows are used."""

    @property
    def told(self) -> list[object]:
        """For identity: the five, and whatever else a kind of op has, such as positions, a schedule or a condition of its own."""
        return [self.kind, self.latent, float(self.value), self.layer, self.sae, *([self.more] if self.more else [])]

    @property
    def more(self) -> dict[str, Any]:
        """What a kind of op has beside the five."""
        return {name: value for name, value in asdict(self).items() if name not in Op.__slots__}


@dataclass(frozen=True, slots=True)
class Sampling:
    temperature: float
    top_p: float
    repetition_penalty: float
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One generation to be made. The first block determines the reply and makes the id; the second is why it is made."""

    model: str
    """Name in params.yaml."""
    weights: str
    """What the name meant: hub id or folder, revision or hash, dtype, quantization, adapter."""
    meaning: str
    """What else stands behind names, as `esr.study.meaning` tells it of a whole study; of it counts what this trial rests on.
    Empty: not recorded."""
    prompt: str
    """The whole user turn, suffix included."""
    prompt_format: str
    """`clean` or `double_header` (the authors' second BOS and header)."""
    prefill: tuple[int, ...] = ()
    """Tokens put at the start of the assistant's turn, as an earlier reply had them; text would be tokenised in another way."""
    seed: int
    sampling: Sampling
    ops: tuple[Op, ...] = ()
    scope: Scope = "all"

    question: str = ""
    """The object-level question without any suffix."""
    latent: Latent = field(default=Latent(BLIND))
    """The distractor that the judge is told of; also of an unsteered trial. Index −1: none."""
    boost: float = 0.0
    """Coefficient on the distractor's decoder row; 0 when unsteered."""
    threshold: float | None = None
    """The distractor's own calibrated boost, when known."""
    prefill_text: str = ""
    """What `prefill` reads."""

    @property
    def id(self) -> str:
        ops = sorted((op.told for op in self.ops), key=lambda told: (told[:5], json.dumps(told[5:])))
        s = self.sampling
        sampling = [float(s.temperature), float(s.top_p), float(s.repetition_penalty), s.max_tokens]
        return content_id(
            "trial", self.model, self.weights, self.prompt, self.prompt_format, list(self.prefill) or "", self.seed, sampling, ops,
            self.scope, *([self.meant] if self.meaning else []),
        )  # fmt: skip

    @property
    def meant(self) -> str:
        """Of the meaning, what this trial rests on: the rendering, the SAEs that its ops name, and the model's length where it could
        cut the reply. So unsteered trials under two SAEs are one generation."""
        size = len(self.prompt.encode()) + len(self.prefill) + self.sampling.max_tokens
        return meant(self.meaning, frozenset(op.sae for op in self.ops), size) if self.meaning else ""

    def as_dict(self) -> dict[str, object]:
        return asdict(self) | {"id": self.id}


@lru_cache(maxsize=4096)
def meant(meaning: str, saes: frozenset[str], size: int) -> str:
    """The part of a meaning that a trial with ops on these SAEs rests on; `size`: at most so many tokens of prompt and reply."""
    whole: dict[str, Any] = json.loads(meaning)
    told: dict[str, str] = whole.get("saes", {})
    if unknown := sorted(saes - set(told)):
        raise DataError(
            f"a trial names the SAE {unknown[0]!r} and its meaning tells of {', '.join(sorted(told)) or 'none'}; give it that of a study "
            "whose model has this SAE"
        )
    part: dict[str, Any] = {"chat": whole["chat"]}
    if saes:
        part["saes"] = {name: told[name] for name in saes}
    if "room" in whole and size > whole["room"]:
        part["room"] = whole["room"]
    return json.dumps(part, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Arm:
    """A condition within an experiment: what its trials have in common."""

    experiment: str
    name: str
    kind: str = ""
    """What sort of condition: `baseline`, `ablated`, `meta-prompt`, `unsteered`, `absolute`, `relative`, …"""
    level: float | None = None
    """Its number where the arms of a kind are a series: a boost, a multiple of the threshold, the number of a set, a share."""
    order: int = 0
    """Its place among the experiment's arms."""
    against: str = "exp01/baseline"
    """`experiment/arm` that it is compared with; empty: with none."""
    mean: float | None = None
    """Of the thresholds that absolute levels were laid over."""
    std: float | None = None
    """Of the same, ddof 0."""

    @property
    def key(self) -> str:
        return f"{self.experiment}/{self.name}"


BASELINE = Arm("exp01", "baseline", "baseline", against="")
"""Experiment 1's steered trials, which most experiments replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A trial's place in an experiment. One trial may be a member of many arms."""

    arm: Arm
    model: str
    scale: str
    trial: Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back for one trial."""

    trial_id: str
    text: str
    token_ids: tuple[int, ...]
    n_prompt_tokens: int
    finish_reason: str
    """`stop` (the model ended its turn) or `length` (cut at max_tokens)."""
    applied: int
    """How many positions an intervention was applied to; 0 for an unsteered trial, never 0 for a steered one."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A passage that the judge marks off as one try at the question."""

    score: float
    """0 to 100."""
    text: str
    """As the judge quoted it."""
    start: int | None = None
    """Offset in the reply where the quotation was found; None: it is not in the reply."""
    end: int | None = None

    @property
    def located(self) -> bool:
        return self.start is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """One judge's verdict on one reply about one distractor. Without attempts it is missing, with the reason beside."""

    trial_id: str
    latent: int
    """The distractor the judge was told of; −1: none or blind."""
    judge: str
    """Name in params.yaml."""
    judge_prompt: str
    """Hash of the judge's instructions and parameters."""
    shown: str | None = None
    """Hash of what the judge was shown besides its instructions and the reply: the prompt and, unless it is blind, the label.
    None: not recorded."""
    attempts: tuple[Attempt, ...] = ()
    missing: str | None = None
    """Why there is no valid grade: `refused`, `malformed`, `no attempt`, `unreachable`, `budget`, …; None: graded."""
    answer_key: str = ""
    """The stored raw answer this grade was read from."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    """US dollars; None: the price is unknown."""

    @property
    def counted(self) -> tuple[Attempt, ...]:
        """The attempts that are in the reply: what outcomes rest on. The others are what the judge made up."""
        return tuple(attempt for attempt in self.attempts if attempt.located)
