"""The bench: one model at one scale with its store, and an engine and judges that are opened when first needed.

    bench = Bench(load("tiny"), "tiny", Store())
    latents = bench.latents()
    baseline = plan(bench.params, latents=latents, thresholds=…, …)
    bench.replies([member.trial for member in baseline])
    bench.grades(baseline, "lexical")

Every step first asks the store what is there, computes the rest, and makes it durable batch by batch, so any step can be killed
and asked again. A flow calls these through tasks; a notebook calls them as they are.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from esr.engine import Backend, Capture, Engine, Request
from esr.errors import ParamsError, StoreError, one_of
from esr.judge import CURABLE, Judge, JudgeQuestion
from esr.params import Params, resolve
from esr.params.weights import identity
from esr.prompts import discovery, evaluation
from esr.store import Store
from esr.store.locks import turn
from esr.study import calibrate as calibration
from esr.study import detect as detectors
from esr.study import steer as steering
from esr.study.batches import work
from esr.study.choose import candidates, concrete, irrelevant
from esr.study.plan import stream
from esr.types import BLIND, Grade, Latent, Member, Reply, Sampling, Trial, content_id

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tick:
    """Progress of one stage since its last tick."""

    stage: str
    done: int
    stored: int = 0
    """Of the done, how many were in the store already."""
    missing: int = 0
    cost: float | None = 0.0
    """US dollars; None: a price is unknown."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Distinct trials of a plan, and how many of them have a reply and a grade in the store."""

    trials: int
    replies: int
    grades: int


def backend() -> Backend:
    """Which engine this process uses: $ESR_ENGINE, or vllm."""
    name = os.environ.get("ESR_ENGINE") or "vllm"
    if name not in ("vllm", "hf", "fake"):
        raise ParamsError(one_of("engine", name, ["vllm", "hf", "fake"], "$ESR_ENGINE"))
    return cast(Backend, name)


class Bench:
    def __init__(
        self,
        params: Params,
        model: str,
        store: Store,
        *,
        tick: Callable[[Tick], None] = lambda _: None,
        go_on: Callable[[], None] = lambda: None,
        budget: str | None = None,
    ) -> None:
        """`tick` is told what has been done; `go_on` is asked before each batch and raises to stop after those at work; `budget` names
        what max_cost counts over, and is this process where there is none."""
        self.params, self.model, self.store, self.tick, self.go_on, self.budget = params, model, store, tick, go_on, budget
        self._opened: Engine | None = None

    @cached_property
    def weights(self) -> str:
        """The identity of the weights; replies of the fake engine never mix with others."""
        return f"fake:{self.params.model(self.model).weights}" if backend() == "fake" else identity(self.params, self.model)

    @property
    def engine(self) -> Engine:
        from esr.engine.open import open_engine

        self._opened = open_engine(self.params, self.model, backend())
        return self._opened

    def judge(self, name: str) -> Judge:
        from esr.judge.open import open_judge

        return open_judge(self.params, name, store=self.store.root, budget=self.budget)

    def check(self, judges: Sequence[str]) -> None:
        """Whatever would stop a run is said before it begins."""
        _ = self.weights, self.labels
        rater = [] if self.params.protocol.concreteness == "off" else [self.params.judging.concreteness_judge]
        for name in {*judges, *rater, self.params.model(self.model).judge}:
            self.judge(name)
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

    def progress(self, experiment: str, judge: str) -> "Progress":
        """How much of an experiment, and of the experiment 1 that it rests on, is in the store."""
        rows = self.store.sql(
            "select count(distinct m.trial_id) as trials, count(distinct r.trial_id) as replies, count(distinct g.trial_id) as grades "
            "from members m left join replies r using (trial_id) left join grades g on g.trial_id = m.trial_id and g.judge = ? "
            "where m.model = ? and m.scale = ? and m.experiment in (?, 'exp01')",
            [judge, self.model, self.params.scale, experiment],
        ).to_pylist()
        return Progress(**rows[0])

    def turn(self, *of: object) -> AbstractContextManager[None]:
        """Alone at this piece of work, among all runs on this store."""
        return turn(self.store.root / "turns", self.model, *of)

    def replies(self, trials: Sequence[Trial], stage: str = "steer") -> int:
        """Generates what the store lacks; how many that were."""
        with self.turn("replies", [trial.id for trial in trials]):
            known = self.store.known("replies", [trial.id for trial in trials])
            lacking = list({trial.id: trial for trial in trials if trial.id not in known}.values())
            self.tick(Tick(stage, len(trials) - len(lacking), stored=len(trials) - len(lacking)))
            if not lacking:
                return 0

            def keep(replies: list[Reply]) -> None:
                self.store.put_replies(replies)
                self.tick(Tick(stage, len(replies)))

            w = self.params.work
            return steering.steer(self.engine, lacking, keep, batch=w.batch, in_flight=w.in_flight, go_on=self.go_on)

    def texts(self, ids: Sequence[str]) -> dict[str, str]:
        """The replies in the store, by trial."""
        table = self.store.sql("select trial_id, text from replies where trial_id in (select unnest(?))", [list(ids)])
        return dict(zip(table["trial_id"].to_pylist(), table["text"].to_pylist(), strict=True))

    def graded(self, ids: Sequence[str], judge: Judge) -> dict[tuple[str, int], float | None]:
        """First-attempt score in [0, 1] of each final grade by (trial, latent); None: missing for good."""
        table = self.store.sql(
            "select trial_id, latent, attempts[1].score / 100 as score, missing from grades "
            "where judge = ? and judge_prompt = ? and trial_id in (select unnest(?))",
            [judge.name, judge.prompt_hash, list(ids)],
        )
        rows = table.to_pylist()
        return {(row["trial_id"], row["latent"]): row["score"] for row in rows if row["missing"] not in CURABLE}

    def finished(self, members: Sequence[Member], judge_name: str) -> set[tuple[str, int]]:
        """The (trial, latent) that have a reply and a final grade: asked once for many shards."""
        judge, ids = self.judge(judge_name), [member.trial.id for member in members]
        replied, scores = self.store.known("replies", ids), self.graded(ids, judge)
        keys = {(m.trial.id, m.trial.latent.index) for m in members}
        return {key for key in keys if key[0] in replied and (key in scores or (key[0], BLIND) in scores)}

    def grades(self, members: Sequence[Member], judge_name: str, stage: str = "judge") -> dict[tuple[str, int], float | None]:
        """Grades every reply of these members that lacks a final grade; all first-attempt scores by (trial, latent)."""
        judge, ids = self.judge(judge_name), [member.trial.id for member in members]
        with self.turn("grades", judge.name, judge.prompt_hash, ids):
            scores = self.graded(ids, judge)
            trials = {(m.trial.id, m.trial.latent.index): m.trial for m in members}
            lacking = {key: trial for key, trial in trials.items() if key not in scores and (key[0], BLIND) not in scores}
            self.tick(Tick(stage, len(members) - len(lacking), stored=len(members) - len(lacking)))
            if not lacking:
                return scores
            texts = self.texts([trial_id for trial_id, _ in lacking])
            questions = [
                JudgeQuestion(trial_id=trial_id, prompt=trial.prompt, reply=texts[trial_id], latent=trial.latent)
                for (trial_id, _), trial in lacking.items()
                if trial_id in texts
            ]

            def grade(some: Sequence[JudgeQuestion]) -> list[Grade]:
                self.go_on()
                return judge.grades(some)

            w = self.params.work
            size = (
                len(questions) if self.params.judging.mode == "batch" else w.batch
            )  # a provider's batch may take a day: one, not many
            for grades in work(grade, questions, size=size, in_flight=w.in_flight):
                self._keep(grades, stage)
                scores |= {(grade.trial_id, grade.latent): calibration.first_score(grade) for grade in grades}
            return scores

    def _keep(self, grades: list[Grade], stage: str) -> None:
        self.store.put_grades(grades)
        costs = [grade.cost for grade in grades]
        cost = None if None in costs else sum(cost for cost in costs if cost is not None)
        self.tick(Tick(stage, len(grades), missing=sum(grade.missing is not None for grade in grades), cost=cost))

    @cached_property
    def labels(self) -> list[Latent]:
        """Every labelled latent of the model's SAE."""
        from esr.sae.labels import read_labels

        sae = self.params.sae(self.params.model(self.model).sae)
        if sae.labels is None:
            return [Latent(index) for index in range(sae.d_sae)]
        inside = self.store.root / sae.labels
        return read_labels(inside if inside.is_file() else resolve(sae.labels), d_sae=sae.d_sae)

    def latents(self) -> list[Latent]:
        """The latents to steer: concrete by their label, and silent on the evaluation questions."""
        p, n = self.params.protocol, self.params.exp01.latents
        drawn = candidates(self.params, self.labels, n * p.candidates_per_latent)
        if p.concreteness != "off":
            rated = zip(drawn, self.ratings([latent.label for latent in drawn]), strict=True)
            drawn = concrete(drawn, {latent.index: rating for latent, rating in rated if rating is not None}, p.concreteness)
        if p.relevance != "off":
            drawn = irrelevant(drawn, self.maxima(evaluation()), p.relevance)
        if len(drawn) < n:
            log.warning("%d latents were asked for and %d pass the filters", n, len(drawn))
        return drawn[:n]

    def ratings(self, labels: Sequence[str]) -> list[float | None]:
        """How concrete each label is, 0 to 100; None: no rating."""
        return self.judge(self.params.judging.concreteness_judge).ratings(labels)

    def maxima(self, questions: Sequence[str]) -> NDArray[np.float32]:
        """[questions, d_sae]: each latent's largest activation on the whole prompt."""
        m, p = self.params.model(self.model), self.params.protocol
        capture = Capture(layer=m.read_layer, sae=m.sae, mode="max")
        sampling = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=1)
        requests = [Request(prompt=q, prompt_format=p.prompt_format, sampling=sampling, capture=capture) for q in questions]
        return np.stack([reading.values for reading in self.engine.read(requests)])

    def thresholds(self, latents: Sequence[Latent]) -> list[dict[str, Any]]:
        """The boost at which each latent bites, by the model's own judge."""
        judge = self.params.model(self.model).judge

        def scores(members: list[Member]) -> dict[str, float | None]:
            self.replies([member.trial for member in members], "calibrate")
            found = self.grades(members, judge, "calibrate: judge")
            keys = {m.trial.id: (m.trial.id, m.trial.latent.index) for m in members}
            return {trial_id: found.get(key, found.get((trial_id, BLIND))) for trial_id, key in keys.items()}

        return calibration.calibrate(self.params, self.model, self.weights, latents, evaluation(), scores)

    def discovery(self) -> list[list[Trial]]:
        """For each discovery question, the unsteered trials whose replies detectors are found in."""
        rng, exp = stream(self.params, "discovery"), self.params.exp03
        return [
            [self._unsteered(question, rng.randrange(self.params.protocol.n_seeds)) for _ in range(exp.replies_per_question)]
            for question in discovery()
        ]

    def _unsteered(self, question: str, seed: int) -> Trial:
        return Trial(
            model=self.model,
            weights=self.weights,
            prompt=question,
            prompt_format=self.params.protocol.prompt_format,
            seed=seed,
            sampling=self.params.sampling(self.model),
            question=question,
        )

    def activations(self) -> detectors.Activations:
        """Of every latent, over the discovery replies under their own questions and under others'."""
        trials = self.discovery()
        flat = [trial for row in trials for trial in row]
        self.replies(flat, "discover")
        texts = self.texts([trial.id for trial in flat])
        orders = detectors.derangements(len(trials), self.params.exp03.derangements, self.params.seed)
        found = detectors.pairs([row[0].prompt for row in trials], [[texts[t.id] for t in row] for row in trials], orders)
        p, model = self.params, self.params.model(self.model)
        return detectors.activations(self.engine, found, model, p.exp03, p.protocol.prompt_format, batch=p.work.batch)

    def detected(self, seen: detectors.Activations) -> list[detectors.Detector]:
        return detectors.detectors(seen, self.params.exp03, {latent.index: latent.label for latent in self.labels})

    def controls(self, seen: detectors.Activations, barred: Sequence[int]) -> dict[str, list[detectors.Detector]]:
        """As many sets of each kind as params ask for, by name: `matched-0`, `uniform-2`; no two matched sets share a latent."""
        found, exp = self.detected(seen), self.params.exp10
        labels = {latent.index: latent.label for latent in self.labels}
        sets: dict[str, list[detectors.Detector]] = {}
        for kind in exp.matchings:
            out = set(barred)
            for i in range(exp.sets):
                drawn = detectors.CONTROLS[kind](seen, found, sorted(out), exp.first_seed + i, labels)
                out |= {control.latent for control in drawn if kind == "matched"}  # nearest neighbours would come again
                sets[f"{kind}-{i}"] = drawn
        return sets

    def put_detectors(self, sets: Mapping[str, Sequence[Mapping[str, Any]]]) -> int:
        """Sets of ablated latents by name, each under an id of its content."""
        rows = [
            {"set_id": content_id(self.weights, name, [d["latent"] for d in found], length=16), "model": self.model, **d}
            for name, found in sets.items()
            for d in found
        ]
        self.store.put("detectors", rows)
        return len(rows)

    def put_run(self, experiment: str, judge: str, *, started: datetime, status: str, cost: float | None = None) -> str:
        """How a run ended, with everything that it rested on."""
        from esr.record.manifest import manifest

        judges = sorted({judge, self.params.model(self.model).judge})
        return self.store.put_run(
            {
                "experiment": experiment,
                "model": self.model,
                "scale": self.params.scale,
                "started_at": started,
                "finished_at": datetime.now(UTC),
                "status": status,
                "cost": cost,
                "manifest": manifest(self.params, self.model, engine=self._opened, judges=[self.judge(name) for name in judges]),
            }
        )
