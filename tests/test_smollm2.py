"""docs/smollm2.md says what the recorded files say: the SAE's card, its labels, the results."""

import json
from functools import cache

import pytest

from esr.params import HOME, load
from esr.sae.labels import read_labels
from esr.show import recorded, words
from esr.show.counted import Counted, arms

PAGE = (HOME / "docs" / "smollm2.md").read_text(encoding="utf-8")
SAE = HOME / "models" / "smollm2-sae"


@cache
def counted(experiment: str) -> dict[str, Counted]:
    return {one.arm.key: one for one in arms(recorded.read(HOME / "store" / "export" / experiment / "smollm2"))}


def test_the_sae_is_as_good_as_its_card_says() -> None:
    card = json.loads((SAE / "card.json").read_text())
    found = card["quality"]
    assert f"| explained variance | {found['explained_variance']:.3f} |" in PAGE
    assert f"| latents active at a token (L0) | {found['l0']:.1f} |" in PAGE
    assert f"| {found['loss']:.3f}, {found['loss_spliced']:.3f}, {found['loss_zeroed']:.3f} nats |" in PAGE
    assert f"| loss recovered | {found['loss_recovered']:.3f} |" in PAGE
    assert f"| {found['dead_share']:.1%} |".replace("%", " %") in PAGE
    assert f"{found['replies']} replies\n({found['tokens']:,} tokens)" in PAGE
    assert f"{card['text']['tokens'] / 1e6:.1f} million tokens" in PAGE
    assert f"each of {card['text']['prompts']:,} prompts" in PAGE


def test_its_labels_are_those_that_are_told() -> None:
    about = json.loads((SAE / "labels.json").read_text())
    there = read_labels(SAE / "labels.csv", d_sae=load().sae("smollm2-l18").d_sae)
    assert len(there) == about["labelled"]
    low, high = about["score_quartiles"]
    assert f"mean AUC {about['score_mean']:.2f} (middle half {low:.2f} to {high:.2f}) over {about['labelled']:,} latents" in PAGE
    assert f"over all {about['tried']:,} that were tried {about['score_mean_of_tried']:.2f}" in PAGE
    assert f"{about['concrete']} labels are rated" in PAGE
    assert f"from {about['texts']['n']:,} replies of {about['texts']['groups']} subjects" in PAGE


@pytest.mark.parametrize(
    ("experiment", "arm", "metric"),
    [
        ("exp01", "exp01/baseline", "multi_attempt_rate"),
        ("exp08", "exp08/no-steering", "multi_attempt_rate"),
        ("exp02", "exp02/relative-0.75", "multi_attempt_rate"),
        ("exp05", "exp05/self_monitor", "multi_attempt_rate"),
        ("exp05", "exp05/self_monitor", "esr_rate"),
        ("exp01", "exp01/baseline", "first_score_mean"),
        ("exp14", "exp14/prompt", "first_score_mean"),
        ("exp14", "exp14/first-16", "first_score_mean"),
        ("exp14", "exp14/generated", "first_score_mean"),
    ],
)
def test_a_result_is_the_recorded_one(experiment: str, arm: str, metric: str) -> None:
    found = counted(experiment)[arm].estimates[metric]
    assert words.estimate(found) in PAGE
    assert f"{found.n:,}" in PAGE


def test_the_sweep_s_largest_rate_is_the_one_that_is_named() -> None:
    rates = {arm: one.estimates["multi_attempt_rate"].value for arm, one in counted("exp02").items() if arm.startswith("exp02/")}
    assert len(rates) == 20
    assert max(rates, key=lambda arm: rates[arm] or 0.0) == "exp02/relative-0.75"


def test_what_longer_searches_changed_is_as_it_was_measured() -> None:
    found = json.loads((HOME / "docs" / "benchmarks" / "smollm2_searches.json").read_text())
    assert load("smollm2").protocol.search_max_tokens == load("smollm2").protocol.max_tokens == 256
    score, multi = found["first_score"], found["multi_attempt"]
    assert f"first attempts {score['mean']} [{score['low']}, {score['high']}]" in PAGE
    assert f"second attempts {100 * multi['share']:.1f} % [{100 * multi['low']:.1f}, {100 * multi['high']:.1f}]" in PAGE
