"""Result files of experiments 1 to 5, 8 and 10: latents with their trials, to rows."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from esr.count.degraded import degraded
from esr.prompts import discovery, evaluation
from esr.reference.names import Names
from esr.reference.places import ASIDE, Place
from esr.reference.scores import Row, number, verdict, whole, words
from esr.types import content_id

PLAN = JUDGE_PROMPT = "reference"
"""Stands for what the files do not record: the plan of an arm, and the judge's instructions."""

Rows = Iterator[tuple[str, Row]]
"""A table's name and a row of it."""


@dataclass
class Context:
    """What every trial of one file shares."""

    sha256: str
    place: Place
    judge: str
    scale: str
    written: datetime | None
    ablated: Sequence[int]
    target: float | None
    names: Names
    problems: Counter[str] = field(default_factory=Counter)


def feature_rows(about: Context, index: int, feature: object) -> Rows:
    """One entry of `results_by_feature`."""
    if not isinstance(feature, Mapping):
        about.problems["entries that are not latents are left out"] += 1
        return
    latent = whole(feature.get("feature_index_in_sae"))
    if latent is None:
        about.problems["latents without a number are left out with their trials"] += 1
        return
    failed = feature.get("error")
    threshold = number(feature.get("threshold"))
    if failed:
        about.problems[f"latents that failed; the first: {words(failed)[:120]}"] += 1
    elif threshold is not None:
        yield from _threshold(about, index, latent, words(feature.get("feature_label")), threshold)
    trials = feature.get("trials")
    if not isinstance(trials, list):
        if trials is not None or not failed:
            about.problems["latents without a list of trials"] += 1
        return
    for i, trial in enumerate(trials):
        if isinstance(trial, Mapping):
            yield from _trial(about, (index, i), latent, feature, trial)
        else:
            about.problems["trials that are not objects are left out"] += 1


def _threshold(about: Context, index: int, latent: int, label: str, threshold: float) -> Rows:
    named = content_id("reference", about.sha256, "threshold", index)
    yield (
        "thresholds",
        {
            "calibration_id": named,
            "model": about.place.model.name,
            "latent": latent,
            "label": label,
            "threshold": threshold,
            "status": "reference-ablated" if about.ablated else "reference",
            "target": about.target,
        },
    )
    yield "provenance", {"sha256": about.sha256, "relation": "thresholds", "id": named}


def _trial(about: Context, at: tuple[int, int], latent: int, feature: Mapping[str, Any], trial: Mapping[str, Any]) -> Rows:
    boost, place = number(trial.get("threshold")), about.place
    own = number(feature.get("threshold"))
    if place.arm is None and boost is None:
        about.problems[f"trials of a boost sweep without a boost stand under {place.experiment}/{ASIDE}"] += 1
    unsteered = place.experiment == "exp08"
    named = content_id("reference", about.sha256, *at)
    prompt, label = words(trial.get("prompt")), words(feature.get("feature_label") or trial.get("feature_label"))
    steered = 0.0 if unsteered else boost
    yield (
        "trials",
        {
            "trial_id": named,
            "model": place.model.name,
            "prompt": prompt,
            "seed": whole(trial.get("seed"), 63),
            "ops": _ops(latent, steered, about.ablated),
        },
    )
    member = {
        "experiment": place.experiment,
        "model": place.model.name,
        "arm": _arm(place, boost),
        "scale": about.scale,
        "plan": PLAN,
        "trial_id": named,
        "question": question(prompt),
        "latent": latent,
        "latent_label": label,
        "boost": steered,
        "threshold": None if unsteered else own if place.arm is None or boost is None else boost,
    }
    yield "members", member
    if place.base:
        yield "members", member | {"experiment": "exp04", "arm": "base"}
    response = trial.get("response")
    if isinstance(response, str):
        yield "replies", {"trial_id": named, "text": words(response), "degraded": degraded(response)}
    elif response is not None:
        about.problems["replies that are not text are left out"] += 1
    yield "provenance", {"sha256": about.sha256, "relation": "trials", "id": named}
    yield from _grades(about, named, latent, feature.get("error"), trial)


def _arm(place: Place, boost: float | None) -> str:
    if place.arm is not None:
        return place.arm
    if boost is None:
        return ASIDE
    return f"{boost!r}" if place.experiment == "exp02" else f"detectors-{boost!r}"


def _ops(latent: int, boost: float | None, ablated: Sequence[int]) -> list[Row]:
    """As far as the files tell; layer and SAE are not recorded."""
    add = [{"kind": "add", "latent": latent, "value": boost, "layer": None, "sae": None}] if boost else []
    return add + [{"kind": "clamp", "latent": k, "value": 0.0, "layer": None, "sae": None} for k in ablated]


def _grades(about: Context, trial_id: str, latent: int, failed: object, trial: Mapping[str, Any]) -> Rows:
    """The file's judge, and every further judge whose `score_<judge>` stands beside."""
    judges = {about.judge: trial.get("score")}
    for key in trial:
        if key.startswith("score_") and isinstance(trial[key], Mapping):
            name = about.names.judge(key.removeprefix("score_"))
            if name in judges:
                about.problems[f"a second verdict of {name} on one trial ({key}) is left out"] += 1
            judges.setdefault(name, trial[key])
    broken = f"latent failed: {words(failed)[:200]}" if failed else None
    if broken is None and trial.get("error"):
        broken = f"trial failed: {words(trial.get('error'))[:200]}"
    for judge, score in judges.items():
        attempts, missing = verdict(score, about.problems)
        yield "grades", grade(trial_id, latent, judge, attempts, broken or missing, about.written)


def grade(trial_id: str, latent: int, judge: str, attempts: list[Row], missing: str | None, at: datetime | None) -> Row:
    return {
        "trial_id": trial_id,
        "latent": latent,
        "judge": judge,
        "judge_prompt": JUDGE_PROMPT,
        "attempts": attempts,
        "missing": missing,
        "graded_at": at,
    }


def question(prompt: str) -> str:
    """The object-level question at the head of a prompt; the whole prompt when it is none that we know."""
    return next((known for known in _QUESTIONS if prompt == known or prompt.startswith(known + " ")), prompt)


_QUESTIONS = [*evaluation(), *discovery()]
