"""One arm's trials with replies and every judge's grades, read from the store a batch at a time."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from esr.errors import DataError
from esr.judge.providers.given import given
from esr.show.lacking import ungraded
from esr.store import Store
from esr.types import Arm

BATCH = 1000
"""Trials whose texts are in memory at once."""
TOLD = ("trial_id", "latent", "n_attempts", "first_score", "multi", "corrected", "gain", "scores", "judge_prompt")
"""What a sample tells of an outcome."""
Row = Mapping[Any, Any]
WHERE = "experiment = ? and model = ? and arm = ? and scale = ?"


@dataclass(frozen=True)
class Source:
    """An arm as the store holds it: which trials, which of them each judge graded, and the run."""

    store: Store
    arm: Arm
    model: str
    scale: str
    members: pd.DataFrame
    """A row a trial, by latent, question and seed, with its sample id and epoch."""
    outcomes: Mapping[str, pd.DataFrame]
    """Graded trials by judge, as the view defines them."""
    missing: Mapping[str, Mapping[tuple[str, int], str]]
    """By judge, why the grade of a trial and latent is no valid one; a trial that is in neither was not asked about."""
    runs: Mapping[str, Row] = field(default_factory=dict)
    """The newest run of the experiment by judge, where one is recorded."""

    @property
    def judges(self) -> list[str]:
        return list(self.outcomes)


def source(store: Store, arm: Arm, model: str, scale: str, judges: Sequence[str]) -> Source:
    """Of these judges, or of every one that has been asked."""
    asked: list[object] = [arm.experiment, model, arm.name, scale]
    members = store.sql(
        "select m.trial_id, m.latent, m.latent_label, m.question, m.boost, m.threshold, t.seed from current_members m "
        f"join trials t using (trial_id) where {' and '.join(f'm.{part}' for part in WHERE.split(' and '))}",
        asked,
    ).to_pandas()
    if members.empty:
        raise DataError(f"{arm.key} has no trials of {model!r} at scale {scale!r}")
    members = members.sort_values(["latent", "question", "seed", "trial_id"], kind="stable", ignore_index=True)
    members["epoch"] = members.groupby(["latent", "question"]).cumcount() + 1
    graded = store.sql(
        f"select * exclude (prompt) from outcomes where {WHERE} order by latent, question, seed, trial_id", asked
    ).to_pandas()
    verdicts = store.sql(
        f"select trial_id, latent, judge, {ungraded('judged')} as lacks from judged where {WHERE}", asked
    ).to_pandas()
    there = sorted(verdicts["judge"].unique())
    chosen = [name for name in there if name in judges] if judges else there
    outcomes = {name: graded[graded["judge"] == name].reset_index(drop=True) for name in chosen}
    missing = {name: _missing(verdicts[verdicts["judge"] == name]) for name in chosen}
    runs = store.sql(
        "select * from runs where experiment = ? and model = ? and scale = ? order by started_at desc",
        [arm.experiment, model, scale],
    ).to_pylist()
    newest = {str(run["judge"]): run for run in reversed(runs)}
    return Source(store, arm, model, scale, members, outcomes, missing, newest)


def _missing(verdicts: pd.DataFrame) -> dict[tuple[str, int], str]:
    rows = verdicts[verdicts["lacks"].notna()]
    return {(row["trial_id"], int(row["latent"])): row["lacks"] for row in rows.to_dict("records")}


@dataclass(frozen=True, slots=True)
class Trial:
    """One row of an arm with its texts."""

    member: Row
    trial: Row
    reply: Row | None
    outcomes: Mapping[str, Row]
    """By judge."""
    grades: Mapping[str, Row]
    """By judge, the stored grade behind the outcome, or behind what is missing; a judge that was not asked is not here."""
    answers: Mapping[str, str]
    """By judge, its raw answer, where it is on this machine."""


def trials(found: Source) -> Iterator[Trial]:
    """Every one, in order."""
    by = {name: _keyed(rows) for name, rows in found.outcomes.items()}
    for at in range(0, len(found.members), BATCH):
        some = found.members.iloc[at : at + BATCH].to_dict("records")
        ids = sorted({row["trial_id"] for row in some})
        of = "trial_id in (select unnest(?))"
        made = {row["trial_id"]: row for row in found.store.sql(f"select * from trials where {of}", [ids]).to_pylist()}
        replies = {row["trial_id"]: row for row in found.store.sql(f"select * from replies where {of}", [ids]).to_pylist()}
        grades: dict[tuple[str, str], list[Row]] = {}
        for row in found.store.sql(f"select * from grades where {of} and list_contains(?, judge)", [ids, found.judges]).to_pylist():
            grades.setdefault((row["trial_id"], row["judge"]), []).append(row)
        keys = sorted({row["answer_key"] for rows in grades.values() for row in rows if row["answer_key"]})
        texts = {key: answer.text for key, answer in given(found.store.root, keys).items()}
        for member in some:
            key = (member["trial_id"], int(member["latent"]))
            own = {name: rows[key] for name, rows in by.items() if key in rows}
            stood = {name: _behind(grades.get((key[0], name), []), key[1], own.get(name)) for name in found.judges}
            known = {name: row for name, row in stood.items() if row is not None}
            told = {name: texts[row["answer_key"]] for name, row in known.items() if row["answer_key"] in texts}
            yield Trial(member, made[key[0]], replies.get(key[0]), own, known, told)


def _keyed(rows: pd.DataFrame) -> dict[tuple[str, int], Row]:
    return {(row["trial_id"], int(row["latent"])): row for row in rows[list(TOLD)].to_dict("records")}


def _behind(grades: Sequence[Row], latent: int, outcome: Row | None) -> Row | None:
    """The grade that an outcome was read from; of those that are no outcome, the newest."""
    own = [row for row in grades if row["latent"] in (latent, -1)]
    if outcome is not None:
        own = [row for row in own if row["judge_prompt"] == outcome["judge_prompt"] and row["missing"] is None]
    return max(own, key=lambda row: (row["latent"], row["graded_at"] is not None, row["graded_at"]), default=None)


def reasons(answer: str) -> str:
    """What a judge wrote beside its scores: the field `feedback` of a structured answer, else the answer as it stands."""
    try:
        told = json.loads(answer)
    except ValueError:
        return answer
    return str(told.get("feedback") or answer) if isinstance(told, dict) else answer
