"""docs/smollm2.md says what the recorded files say: the SAE's card, its labels, the results."""

import json
from functools import cache

import pandas as pd
import pytest

from esr.count import metrics
from esr.params import HOME, load
from esr.sae.labels import read_labels
from esr.show import recorded, words
from esr.show.counted import Counted, arms

PAGE = (HOME / "docs" / "smollm2.md").read_text(encoding="utf-8")
SAE = HOME / "models" / "smollm2-sae"


@cache
def counted(experiment: str, model: str = "smollm2") -> dict[str, Counted]:
    return {one.arm.key: one for one in arms(recorded.read(HOME / "store" / "export" / experiment / model))}


@cache
def best_detector(model: str) -> tuple[int, pd.Series]:
    """How many there are, and the one that tells the pairs of other questions apart best."""
    found = pd.read_parquet(HOME / "store" / "export" / "exp03" / model / "detectors.parquet")
    return len(found), found.loc[found.auc_held_out.idxmax()]


def test_the_sae_is_as_good_as_its_card_says() -> None:
    card = json.loads((SAE / "card.json").read_text())
    found = card["quality"]
    assert f"| explained variance | {found['explained_variance']:.3f} |" in PAGE
    assert f"| latents active at a token (L0) | {found['l0']:.1f} |" in PAGE
    assert f"| {found['loss']:.3f}, {found['loss_spliced']:.3f}, {found['loss_zeroed']:.3f} nats |" in PAGE
    assert f"| loss recovered | {found['loss_recovered']:.3f} |" in PAGE
    assert f"| {found['dead_share']:.1%} |".replace("%", " %") in PAGE
    assert f"{found['replies']:,} replies\n({found['tokens']:,} tokens)" in PAGE
    assert f"{card['text']['tokens'] / 1e6:.1f} million tokens" in PAGE
    assert f"each of {card['text']['prompts']:,} prompts" in PAGE


def test_its_labels_are_those_that_are_told() -> None:
    about = json.loads((SAE / "labels.json").read_text())
    there = read_labels(SAE / "labels.csv", d_sae=load().sae("smollm2-l18").d_sae)
    assert len(there) == about["labelled"]
    low, high = about["score_quartiles"]
    assert f"mean AUC {about['score_mean']:.2f} (middle half {low:.2f} to {high:.2f}) over {about['labelled']:,} latents" in PAGE
    assert f"over all {about['tried']:,} that were tried {about['score_mean_of_tried']:.2f}" in PAGE
    assert f"{about['concrete']:,} labels are rated" in PAGE
    assert f"from {about['texts']['n']:,} replies of {about['texts']['groups']} subjects" in PAGE


TUNED = "smollm2:50-1"


@pytest.mark.parametrize(
    ("model", "experiment", "arm", "metric"),
    [
        ("smollm2", "exp01", "exp01/baseline", "multi_attempt_rate"),
        ("smollm2", "exp01", "exp01/baseline", "esr_rate"),
        ("smollm2", "exp01", "exp01/baseline", "first_score_mean"),
        ("smollm2", "exp08", "exp08/no-steering", "multi_attempt_rate"),
        ("smollm2", "exp02", "exp02/absolute-67.8588", "multi_attempt_rate"),
        ("smollm2", "exp02", "exp02/absolute-76.8358", "multi_attempt_rate"),
        ("smollm2", "exp05", "exp05/self_monitor", "multi_attempt_rate"),
        ("smollm2", "exp05", "exp05/self_monitor", "esr_rate"),
        ("smollm2", "exp14", "exp14/prompt", "first_score_mean"),
        ("smollm2", "exp14", "exp14/first-16", "first_score_mean"),
        ("smollm2", "exp14", "exp14/generated", "first_score_mean"),
        ("smollm2", "exp03", "exp03/detectors", "first_score_mean"),
        ("smollm2", "exp10", "exp10/matched-0", "first_score_mean"),
        ("smollm2", "exp10", "exp10/matched-1", "first_score_mean"),
        ("smollm2", "exp10", "exp10/matched-2", "first_score_mean"),
        ("smollm2", "exp10", "exp10/uniform-0", "first_score_mean"),
        ("smollm2", "exp10", "exp10/uniform-1", "first_score_mean"),
        ("smollm2", "exp10", "exp10/uniform-2", "first_score_mean"),
        ("smollm2", "exp11", "exp11/off-400", "multi_attempt_rate"),
        ("smollm2", "exp13", "exp13/steered", "multi_attempt_rate"),
        ("smollm2", "exp13", "exp13/steered", "first_score_mean"),
        ("smollm2", "exp13", "exp13/project_out", "first_score_mean"),
        (TUNED, "exp01", "exp01/baseline", "multi_attempt_rate"),
        (TUNED, "exp01", "exp01/baseline", "esr_rate"),
        (TUNED, "exp01", "exp01/baseline", "first_score_mean"),
        (TUNED, "exp03", "exp03/detectors", "multi_attempt_rate"),
        (TUNED, "exp03", "exp03/detectors-recalibrated", "multi_attempt_rate"),
        (TUNED, "exp03", "exp03/detectors-recalibrated", "first_score_mean"),
    ],
)
def test_a_result_is_the_recorded_one(model: str, experiment: str, arm: str, metric: str) -> None:
    found = counted(experiment, model)[arm].estimates[metric]
    assert words.estimate(found) in PAGE
    assert f"{found.n:,}" in PAGE


def test_the_sweep_s_largest_rates_are_those_that_are_named() -> None:
    rates = {arm: one.estimates["multi_attempt_rate"].value for arm, one in counted("exp02").items() if arm.startswith("exp02/")}
    assert len(rates) == 20
    assert {arm for arm, rate in rates.items() if rate == max(rates.values())} == {
        "exp02/absolute-67.8588",
        "exp02/absolute-76.8358",
    }


@pytest.mark.parametrize(
    ("model", "says"), [("smollm2", "(`exp03.criterion: auc`, docs/activations.md): {}"), (TUNED, "It has {}")]
)
def test_detectors_and_what_the_best_is_worth_are_as_recorded(model: str, says: str) -> None:
    many, best = best_detector(model)
    assert says.format(many) in PAGE
    assert f"latent {best.latent}" in PAGE
    assert f"{best.auc_held_out:.2f} [{best.auc_low:.2f}, {best.auc_high:.2f}]" in PAGE


def test_what_other_latents_cost_beside_the_detectors_is_as_recorded() -> None:
    found = counted("exp10")
    for name in ("matched-1", "uniform-0", "uniform-1", "uniform-2"):
        beside = metrics.differences(found[f"exp10/{name}"].rows, found["exp03/detectors"].rows)
        assert words.difference(beside["first_score_mean"]) in PAGE


def test_differences_of_the_tuned_model_are_as_recorded() -> None:
    for arm in ("exp03/detectors", "exp03/detectors-recalibrated"):
        assert words.difference(counted("exp03", TUNED)[arm].differences["multi_attempt_rate"]) in PAGE


def test_no_reply_of_it_is_an_episode_and_two_of_the_tuned_one_are() -> None:
    assert "exp09/episodes" not in counted("exp09")
    assert counted("exp09", TUNED)["exp09/episodes"].estimates["esr_rate"].n == 2


@pytest.mark.parametrize("model", ["smollm2", TUNED])
def test_detectors_off_topic_against_unsteered_are_as_recorded(model: str) -> None:
    found = pd.read_parquet(HOME / "store" / "export" / "exp09" / model / "compared.parquet")
    one = found.query(
        "steering == 'on' and list == 'detectors' and latent == -1 and one == 'off-topic' and other == 'unsteered'"
    ).iloc[0]
    assert f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" in PAGE
    assert f"the {one.n}" in PAGE


@pytest.mark.parametrize(
    ("name", "columns"),
    [("50 % masked", [1, 2]), ("90 % masked", [1, 2]), ("50 % masked, trained under live steering", [1, 2, 3, 4])],
)
def test_what_trainings_brought_about_is_what_the_table_of_experiment_4_has(name: str, columns: list[int]) -> None:
    tuning = (HOME / "docs" / "finetuning.md").read_text(encoding="utf-8")
    row = next(line for line in tuning.splitlines() if line.startswith(f"| {name} |")).split(" | ")
    for column in columns:
        assert row[column] in PAGE


def test_second_attempts_that_were_read_are_counted_as_they_were_graded() -> None:
    read = pd.read_csv(HOME / "docs" / "benchmarks" / "tuned_replies.csv")
    outcomes = pd.read_parquet(HOME / "store" / "export" / "exp04" / "smollm2" / "outcomes.parquet")
    due = outcomes[outcomes.multi & outcomes.arm.isin(read.arm.unique())]
    assert set(due.trial_id) == set(read.trial_id)
    assert len(read) == 46
    steered = read[~read.arm.str.endswith("-unsteered")]
    says, back, part = (steered.says == "yes").sum(), (steered.returns != "no").sum(), (steered.returns == "partly").sum()
    assert f"{says} of {len(steered)} say" in PAGE
    assert f"{back} of {len(steered)} come back to the question, {part} of these only in part" in PAGE
