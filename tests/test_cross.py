"""Cross-judging: samples and their weights, judges of known error over HTTP, and what is counted of them by hand."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from judge_server import Provider, Schedule, erring
from judge_setup import KEY, params_at
from scipy import stats

from esr.count import agreement, reliability
from esr.errors import DataError
from esr.experiment import Selection, find
from esr.params import Params
from esr.show import recorded
from esr.show.closing_table import lines
from esr.show.crossed import DETECTOR, crossed
from esr.show.figures import judges as drawings
from esr.store import Store
from esr.study import cross, grade
from esr.study.study import Study
from esr.types import BASELINE, Arm, Latent, Member, Reply, Trial

TOLD = Arm("exp05", "self_monitor", "meta-prompt")
RESTARTS = {BASELINE: 5, TOLD: 2}
"""In one of so many replies of each arm there is a restart."""
OVERLOOKED = {"haiku-4.5": 0.15, "sonnet-4.5": 0.5}
"""Of the restarts that are there."""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Study, list[Provider], pd.DataFrame]]:
    """Two arms graded by the lexical judge, and a sample of them by two judges of known error behind interfaces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTHROPIC_API_KEY", KEY)
        root = tmp_path_factory.mktemp("cross")
        patch.setenv("ESR_LIMITS", str(root / "limits"))
        servers = [Provider(schedule=Schedule(faults=share, kinds=("overlooks",))).start() for share in OVERLOOKED.values()]
        params: Params = params_at(servers[0].url, "haiku-4.5")
        params = params.model_copy(
            update={
                "judges": params.judges | {"sonnet-4.5": params_at(servers[1].url, "sonnet-4.5").judge("sonnet-4.5")},
                "experiments": params.experiments
                | {"exp07": params.experiments["exp07"] | {"size": 120, "arms": [BASELINE.key, TOLD.key, "exp03/never-run"]}},
            }
        )
        study = Study(params, "tiny", Store(root / "store"))
        for arm, every in RESTARTS.items():
            members = [member(params, arm, i) for i in range(240)]
            study.store.put_members(members)
            study.store.put_replies([reply(m, i, every) for i, m in enumerate(members)])
            grade.grades(study, members, study.judge("lexical"))
        sample = cross.drawn(study, "lexical")
        cross.record(study, sample, "lexical")
        for name in OVERLOOKED:
            assert cross.graded(study, study.judge(name), sample) == 120
        yield study, servers, sample
        for server in servers:
            server.stop()


def member(params: Params, arm: Arm, i: int) -> Member:
    question = "How do you make a good cup of coffee?"
    trial = Trial(
        model="tiny", weights="w", meaning="", prompt=question + ("" if arm is BASELINE else " Watch yourself."), prompt_format="clean", seed=i,
        sampling=params.sampling("tiny"), question=question, latent=Latent(i % 12, "castles"),
    )  # fmt: skip
    return Member(arm=arm, model="tiny", scale="full", trial=trial)


def reply(m: Member, i: int, every: int) -> Reply:
    text = f"The castle number {i} is old." + (
        f" Wait, that is not right. Grind {i} coffee beans." if (i // 12) % every == 0 else ""
    )
    return Reply(trial_id=m.trial.id, text=text, token_ids=(1,), n_prompt_tokens=1, finish_reason="stop", applied=0)


def test_the_sample_stands_for_its_arms_and_what_was_not_run_is_left_out(judged) -> None:  # type: ignore[no-untyped-def]  # the fixture above
    _, _, sample = judged
    by_source = sample.groupby("source")
    assert dict(by_source.size()) == {"exp01/baseline": 60, "exp05/self_monitor": 60}
    assert dict(by_source["weight"].sum().round(6)) == {"exp01/baseline": 240, "exp05/self_monitor": 240}
    assert dict(by_source["multi"].sum()) == {"exp01/baseline": 30, "exp05/self_monitor": 30}


def test_a_judge_is_asked_only_for_what_it_has_not_graded(judged) -> None:  # type: ignore[no-untyped-def]  # the fixture above
    study, servers, sample = judged
    before = [len(server.requests) for server in servers]
    assert [cross.graded(study, study.judge(name), sample) for name in OVERLOOKED] == [0, 0]
    assert [len(server.requests) for server in servers] == before


def test_judges_of_known_error_are_seen_to_err_by_as_much(judged) -> None:  # type: ignore[no-untyped-def]  # the fixture above
    study, _, _ = judged
    rows = crossed(study.store, Selection("exp07", "tiny", "full", "lexical"))
    assert set(rows["judge"]) == {"lexical", DETECTOR, *OVERLOOKED}
    assert dict(rows.groupby("judge").size()) == dict.fromkeys(rows["judge"].unique(), 120)
    found = {
        pair.other if pair.judge == "lexical" else pair.judge: pair
        for pair in agreement.pairs(rows)
        if "lexical" in (pair.judge, pair.other)
    }
    assert found[DETECTOR].multi.value == 1.0
    assert found[DETECTOR].direction.no_interval == found[DETECTOR].spearman.no_interval == "one of them gives no scores"
    lexical = rows[rows["judge"] == "lexical"].set_index(["source", "trial_id"])["multi"]
    for name, share in OVERLOOKED.items():
        theirs = rows[rows["judge"] == name].set_index(["source", "trial_id"])
        weight = theirs["weight"]
        lost = (lexical & ~theirs["multi"]).loc[weight.index]
        assert 0 < lost.sum() / 60 == pytest.approx(share, abs=0.15)
        assert found[name].multi.value == pytest.approx(1 - (weight * lost).sum() / weight.sum())
        assert found[name].multi.interval.low < found[name].multi.value < 1
    assert found["sonnet-4.5"].kappa.value < found["haiku-4.5"].kappa.value < 1


def test_alpha_and_ranks_are_drawn_with_every_number_beside(judged, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # the fixture above
    study, _, _ = judged
    experiment = find("exp07")
    found = recorded.recorded(study.store, study.params, experiment, experiment.selection("tiny", "full", "lexical"))
    recorded.write(found, tmp_path)
    back = recorded.read(tmp_path)
    _, bars = drawings.bars(back, "bars")
    _, matrix = drawings.matrix(back, "matrix")
    assert lines(study.store, study.params, experiment, experiment.selection("tiny", "full", "lexical")) == []
    alphas = {one["outcome"]: one for one in matrix["alpha"]}  # type: ignore[attr-defined]  # the JSON of a figure
    assert alphas["multi"]["judges"] == 4
    assert alphas["multi"]["bounds"][0] < alphas["multi"]["value"] < alphas["multi"]["bounds"][1]
    ranks = [one for one in bars["ranks"] if one["outcome"] == "multi"]  # type: ignore[attr-defined]  # the same
    assert {one["value"] for one in ranks} == {1.0}  # every judge finds more restarts where there are more
    truth = {source: 1 / every for source, every in ((BASELINE.key, 5), (TOLD.key, 2))}
    lexical = [one for one in bars["rates"] if (one["judge"], one["metric"]) == ("lexical", "multi_attempt_rate")]  # type: ignore[attr-defined]  # the same
    assert {one["arm"]: round(one["value"] / 100, 6) for one in lexical} == pytest.approx(truth)


def test_models_are_drawn_beside_one_another_and_ranked(judged) -> None:  # type: ignore[no-untyped-def]  # the fixture above
    study, _, _ = judged
    experiment = find("exp07")
    found = recorded.recorded(study.store, study.params, experiment, experiment.selection("tiny", "full", "lexical"))
    rows = found.tables["crossed"]
    rarer = rows.assign(model="other", multi=rows["multi"] & (rows["latent"] % 2 == 0), corrected=0.0)
    some = [found, recorded.Recorded({"crossed": rarer}, {**found.about, "model": "other"})]
    _, data = drawings.across(some, "by model")
    rates = {(one["model"], one["judge"]): one for one in data["rates"] if one["metric"] == "multi_attempt_rate"}  # type: ignore[attr-defined]  # the JSON of a figure
    assert {n for n, _ in rates} == {"tiny", "other"}
    assert rates["tiny", "lexical"]["n"] == 60, "of the baseline alone"
    assert rates["tiny", "lexical"]["value"] == pytest.approx(20)
    ranks = [one for one in data["ranks"] if one["outcome"] == "multi"]  # type: ignore[attr-defined]  # the same
    assert {one["value"] for one in ranks} == {1.0}
    assert all(set(one["rates"]) == {"tiny", "other"} for one in ranks)
    assert experiment.figures[0].several is not None


def test_a_scripted_judge_errs_as_often_as_it_is_told() -> None:
    texts = [f"Grind {i} beans and pour the water over them." for i in range(2000)]
    texts += [f"{text} Wait, that is not right. Pour {len(text)} more cups of water." for text in texts]
    told, other = ([len(erring(text, f"errs 0.9 0.985 {seed}")["attempts"]) > 1 for text in texts] for seed in "ab")
    assert 1 - sum(told[:2000]) / 2000 == pytest.approx(0.985, abs=0.008)
    assert sum(told[2000:]) / 2000 == pytest.approx(0.9, abs=0.02)
    assert told != other
    invented = texts[told.index(True)]
    assert all(one["attempt_text"] in invented for one in erring(invented, "errs 0.9 0.985 a")["attempts"]), (
        "what it invents it quotes"
    )


def test_alpha_worked_by_hand() -> None:
    said = {"a": [1, 1, 0, 0], "b": [1, 0, 0, 0]}
    rows = pd.DataFrame(
        [
            {"judge": judge, "trial_id": f"{k}/{i}", "latent": k, "weight": 1.0, "multi": bool(one), "model": "m"}
            for judge, some in said.items() for k in range(12) for i, one in enumerate(some)
        ]
    )  # fmt: skip
    found = reliability.alpha(rows, "multi")
    n, p = 2 * 48, 3 / 8
    assert found.alpha.value == pytest.approx(1 - (1 / 4) / (2 * p * (1 - p) * n / (n - 1)))
    assert found.alpha.interval is not None
    assert (found.n, found.judges) == (48, 2)
    alike = reliability.alpha(rows.assign(multi=False), "multi").alpha
    assert (alike.value, alike.no_interval) == (None, "all judges always say the same one thing")


def test_the_authors_rule_takes_every_second_attempt_and_too_small_a_sample_is_said() -> None:
    rows = pd.DataFrame(
        {"source": np.repeat(["a/x", "b/y"], 50), "model": "tiny", "scale": "full", "judge": "lexical",
         "trial_id": [str(i) for i in range(100)], "latent": 1, "multi": [i % 10 == 0 for i in range(100)]}
    )  # fmt: skip
    drawn = cross.authors(rows, 40, 20, 42)
    assert (len(drawn), int(drawn["multi"].sum())) == (40, 10)
    assert drawn["weight"].sum() == pytest.approx(100)
    with pytest.raises(DataError, match="cannot stand for 2 arms"):
        cross.stratified(rows, 0, 1)


def test_ranks_are_compared_as_scipy_compares_them() -> None:
    rng = np.random.default_rng(3)
    for n in (2, 3, 5, 8, 40):
        for a, b in ((rng.random(n), rng.random(n)), (rng.integers(0, 3, n) / 3, rng.integers(0, 4, n) / 7)):
            value = stats.kendalltau(a, b).statistic
            assert reliability._tau(a, b) == (None if np.isnan(value) else value)
    assert reliability._tau(np.ones(1), np.ones(1)) is None
    assert reliability._tau(np.ones(4), np.arange(4.0)) is None
