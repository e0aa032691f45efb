"""A study: one model at one scale with its store, and an engine and judges that are opened when first needed.

    study = Study.of("tiny", scale="smoke")
    latents = choose.latents(study, 8)
    found = calibrate.thresholds(study, latents)

It holds what a step needs and does nothing itself: the doing stands beside its pure half in choose, calibrate, steer, grade and
detect. Every step first asks the store what is there, computes the rest, and makes it durable batch by batch, so any step can be
killed and asked again.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

from esr.errors import JudgeError, ParamsError, SaeError, StoreError, one_of
from esr.params import ModelParams, Params, load
from esr.params.weights import identity
from esr.sae.labels import labels_file, read_labels
from esr.store import Store
from esr.store.locks import exclusive
from esr.study import meaning, older
from esr.study.progress import Progress
from esr.study.written import Written
from esr.types import Latent

if TYPE_CHECKING:
    from esr.engine import Backend, Engine
    from esr.judge import Judge
    from esr.study.along import Along

log = logging.getLogger(__name__)


def backend() -> "Backend":
    """Which engine this process uses: $ESR_ENGINE, or vllm."""
    name = os.environ.get("ESR_ENGINE") or "vllm"
    if name not in ("vllm", "hf", "fake"):
        raise ParamsError(one_of("engine", name, ["vllm", "hf", "fake"], "$ESR_ENGINE"))
    return cast("Backend", name)


@dataclass(frozen=True)
class Study:
    params: Params
    model: str
    """Name in params.yaml."""
    store: Store
    progress: Progress = field(default_factory=Progress)
    budget: str | None = None
    """Whatever shares this name shares one max_cost; None: this process."""
    along: "Along | None" = None
    """The set of directions that is steered in the SAE's place; None: the SAE's latents are."""

    @classmethod
    def of(cls, model: str, scale: str = "full", store: Store | None = None) -> "Study":
        return cls(load(model, scale), model, store or Store())

    @property
    def spec(self) -> ModelParams:
        return self.params.model(self.model)

    @cached_property
    def weights(self) -> str:
        """The identity of the weights; replies of the fake engine never mix with others."""
        return f"fake:{self.spec.weights}" if backend() == "fake" else identity(self.params, self.model)

    @cached_property
    def meaning(self) -> str:
        """What else determines a reply and is only named in a trial: the SAE, the rendering of the chat, the model's length."""
        sets = {self.along.name: self.along.sha256[:16]} if self.along else {}
        return meaning.of(self.params, self.model, fetch=backend() != "fake", directions=sets)

    @cached_property
    def labels(self) -> list[Latent]:
        """Every labelled latent of the model's SAE, or every direction that is steered in its place."""
        if self.along is not None:
            return [Latent(index, name) for index, name in enumerate(self.along.names)]
        sae = self.params.sae(self.spec.sae)
        if sae.labels is None:
            return [Latent(index, f"latent {index}") for index in range(sae.d_sae)]
        try:
            return read_labels(labels_file(self.store.root, sae.labels), d_sae=sae.d_sae)
        except SaeError as error:
            raise SaeError(f"{error}; `python -m esr doctor {self.model}` says what else is missing and what would do") from None

    @property
    def concreteness(self) -> str:
        """The policy in force."""
        return self.params.concreteness(self.model)

    @property
    def unlabelled(self) -> str | None:
        """What it means that the SAE has no labels, in a sentence; None: it has."""
        if self.params.sae(self.spec.sae).labels is not None:
            return None
        told = "the judge is blind" if self.params.judging.blind else 'the judge is told "latent N"'
        return f"SAE {self.spec.sae} has no labels: latents are drawn without the concreteness filter, and {told}"

    @property
    def engine(self) -> "Engine":
        from esr.engine.open import open_engine

        engine = open_engine(self.params, self.model, backend())
        if self.along is not None:
            engine.load_directions(self.along.name, self.along.file)
        return engine

    def judge(self, name: str) -> "Judge":
        from esr.judge.open import open_judge

        return open_judge(self.params, name, store=self.store.root, budget=self.budget)

    @property
    def grader(self) -> "Judge":
        """The model's own judge, who scores the threshold search."""
        return self.judge(self.spec.judge)

    @property
    def rater(self) -> "Judge":
        """Who says how concrete labels are: their own file, or a judge."""
        return self.written or self.judge(self.params.judging.concreteness_judge)

    @cached_property
    def written(self) -> Written | None:
        """The ratings in the labels' file, where all of them are rated there."""
        labels = self.params.sae(self.spec.sae).labels
        return None if labels is None else Written.of(labels_file(self.store.root, labels))

    def alone(self, *of: object) -> AbstractContextManager[None]:
        """Alone at this piece of work, among all runs on this store."""
        return exclusive(self.store.root / "locks", self.model, *of)

    def check(self, judges: Sequence[str]) -> None:
        """Whatever would stop a run is said before it begins: weights, labels, judges and their keys, a store that can be written."""
        _ = self.weights, self.labels, self.meaning
        for name in dict.fromkeys((*judges, self.spec.judge)):
            self.judge(name)
        if self.concreteness != "off" and self.written is None:
            self._rater_answers()
        if (told := older.adopt(self)) is not None:
            for sentence in told.sentences:
                log.warning("%s", sentence)
        probe = self.store.root / f".writable-{os.getpid()}"
        try:
            self.store.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"?")
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"the store {str(self.store.root)!r} cannot be written ({error.strerror}); make room or make it writable, "
                "or set ESR_STORE to a folder that is; nothing is lost"
            ) from None

    def close(self) -> None:
        """Lets the engine go, where it is open; the next step that needs it opens it anew."""
        from esr.engine.open import close_engine

        if self.opened is not None:
            close_engine(self.opened)

    def _rater_answers(self) -> None:
        name = self.params.judging.concreteness_judge
        try:
            self.judge(name)
        except JudgeError as error:
            said = str(error).partition(", or choose ")[0]
            raise JudgeError(
                f"{said}; it says how concrete labels are (judging.concreteness_judge), so "
                f"`by_model: {{{self.model}: {{judging: {{concreteness_judge: {self.spec.judge}}}}}}}` or `protocol: {{concreteness: off}}` "
                f"in params.yaml would do as well; `python -m esr doctor {self.model}` lists what is missing"
            ) from None

    @property
    def opened(self) -> "Engine | None":
        """The engine where it is open already; None: nothing has been generated or read."""
        from esr.engine.open import already_open

        return already_open(self.params, self.model, backend())

    @property
    def backend(self) -> str:
        return backend()
