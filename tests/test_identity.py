"""What a name in params.yaml stands for is part of a trial: where it changes, the old replies do not come back."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from flow_runs import place
from test_older import shuffled

from esr.engine.chat import FAMILIES, rendering
from esr.errors import DataError
from esr.experiment import find
from esr.judge import Judge, JudgeQuestion
from esr.judge.instructed.grading import shown
from esr.params import HOME
from esr.sae.content import content
from esr.show import recorded
from esr.study import grade, steer
from esr.study.plan import plan, replay, unsteered
from esr.study.study import Study
from esr.types import BASELINE, Arm, Attempt, Grade, Latent, Member


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    where = place(tmp_path / "place")
    for name, value in where.env.items():
        monkeypatch.setenv(name, value)
    return where.root


def study(sae: dict[str, Any] | None = None, **model: Any) -> Study:
    found = Study.of("tiny", "smoke")
    p = found.params
    saes = {**p.saes, "tiny-l3": p.sae("tiny-l3").model_copy(update=sae or {})}
    models = {**p.models, "tiny": p.model("tiny").model_copy(update=model)}
    return replace(found, params=p.model_copy(update={"saes": saes, "models": models}))


def members(s: Study, label: str = "castles") -> list[Member]:
    base = plan(
        s.params, arm=BASELINE, model="tiny", weights=s.weights, meaning=s.meaning, latents=[Latent(8, label)], thresholds={8: 90.0},
        questions=["How do I bake bread?", "How do I plant a tree?"], trials_per_latent=4,
    )  # fmt: skip
    return [*base, *replay(base, Arm("exp08", "no-steering", "unsteered"), unsteered)]


class Told:
    """A judge who is told the label: what he says follows from it alone."""

    def __init__(self, judge: Any) -> None:
        self.judge = judge

    def __getattr__(self, name: str) -> Any:
        return getattr(self.judge, name)

    def shown(self, question: JudgeQuestion) -> str:
        return shown(question, blind=False)

    def grades(self, questions: Any, *, again: bool = False) -> list[Grade]:
        score = {"castles": 10.0, "bicycles": 90.0}
        return [
            replace(g, shown=self.shown(q), missing=None, attempts=(Attempt(score[q.latent.label], q.reply[:4], 0, 4),))
            for g, q in zip(self.judge.grades(questions), questions, strict=True)
        ]


def carried_out(s: Study, label: str = "castles", *, told: bool = False) -> int:
    some = members(s, label)
    s.store.put_members(some)
    made = steer.replies(s, [m.trial for m in some])
    grade.grades(s, some, cast(Judge, Told(s.grader)) if told else s.grader)
    return made


def test_shuffled_decoder_rows_are_other_trials_and_unsteered_ones_the_same(here: Path, tmp_path: Path) -> None:
    assert carried_out(study()) == 8
    assert carried_out(study()) == 0
    other = study({"repo": str(shuffled(tmp_path / "sae"))})
    assert carried_out(other) == 4, "steered anew, and only that"
    assert carried_out(study()) == 0, "the first ones are still known"
    same = shutil.copytree(HOME / "esr/organism/data/sae", tmp_path / "same")
    assert carried_out(study({"repo": str(same)})) == 0, "a place is no content"


@pytest.mark.parametrize(
    "changed", [{"tensor_parallel": 2}, {"pipeline_parallel": 2}, {"max_model_len": 500}, {"tokens_per_second": 1.0}]
)
def test_what_changes_no_token_changes_no_trial(here: Path, changed: dict[str, Any]) -> None:
    assert {m.trial.id for m in members(study(**changed))} == {m.trial.id for m in members(study())}


def test_another_chat_family_or_rendering_or_a_length_that_cuts_are_other_trials(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {m.trial.id for m in members(study())}
    assert not before & {m.trial.id for m in members(study(family="llama3"))}
    assert not before & {m.trial.id for m in members(study(max_model_len=100))}
    assert len({rendering(name) for name in FAMILIES}) == len(FAMILIES)
    monkeypatch.setitem(FAMILIES, "tiny", replace(FAMILIES["tiny"], stops=("<|end|>", "<|user|>")))
    assert not before & {m.trial.id for m in members(study())}


def test_a_renamed_label_is_graded_again_and_the_new_grade_counts(here: Path) -> None:
    """One reply, another distractor in the judge's words."""

    def relabel(label: str) -> None:
        with (here / "labels.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerows([["index_in_sae", "label"], [8, label]])

    relabel("castles")
    s = study()
    assert carried_out(s, "castles", told=True) == 8
    first = s.store.sql("select trial_id, shown, graded_at from grades order by trial_id").to_pylist()
    assert s.store.sql("select distinct first_score_mean as s from summary")["s"].to_pylist() == [10.0]
    labels = s.store.sql("select distinct latent_label from outcomes")["latent_label"].to_pylist()
    relabel("bicycles")
    s = study()
    assert carried_out(s, "bicycles", told=True) == 0, "the replies are the same"
    second = s.store.sql("select trial_id, shown, graded_at from grades order by trial_id").to_pylist()
    assert [row["trial_id"] for row in first] == [row["trial_id"] for row in second]
    for a, b in zip(first, second, strict=True):
        assert a["shown"] != b["shown"]
        assert a["graded_at"] < b["graded_at"]
    assert labels == ["castles"]
    assert s.store.sql("select distinct latent_label from outcomes")["latent_label"].to_pylist() == ["bicycles"]
    assert s.store.sql("select distinct first_score_mean as s from summary")["s"].to_pylist() == [90.0]
    assert s.store.sql("select sum(n_graded) as n from summary")["n"].to_pylist() == [8]


def test_results_of_two_engines_share_no_name_and_are_never_taken_for_each_other(here: Path) -> None:
    s = study()
    carried_out(s)
    quiet = find("exp08")
    own, theirs = (quiet.selection("tiny", "smoke", "lexical", engine) for engine in ("vllm", "fake"))
    assert recorded.place(here, s.params, own).name == "tiny-smoke"
    assert recorded.place(here, s.params, theirs).name == "tiny+fake-smoke"
    with pytest.raises(DataError, match="fake engine"):
        recorded.recorded(s.store, s.params, quiet, own)
    found = recorded.recorded(s.store, s.params, quiet, theirs)
    assert (found.about["engine"], found.title) == ("fake", "tiny (fake engine)")


def test_a_hubs_file_is_named_by_its_hash_once_it_lies_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    from esr.params import load

    block = load("8b").sae("goodfire-8b-l19")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert content(block, fetch=False) == f"{block.repo}/{block.file}"
    folder = tmp_path / f"models--{str(block.repo).replace('/', '--')}"
    for part in ("blobs", "refs", "snapshots/abc"):
        (folder / part).mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    (folder / "blobs" / ("ab" * 32)).write_bytes(b"weights")
    (folder / "snapshots/abc" / str(block.file)).symlink_to(folder / "blobs" / ("ab" * 32))
    assert content(block, fetch=False) == content(block) == "ab" * 8


def test_the_meaning_of_a_trial_can_be_read_in_the_store(here: Path) -> None:
    s = study()
    carried_out(s)
    told = [json.loads(m) for m in s.store.sql("select distinct meaning from trials order by len(meaning)")["meaning"].to_pylist()]
    assert [sorted(one) for one in told] == [["chat"], ["chat", "saes"]]
