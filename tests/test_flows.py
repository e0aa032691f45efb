"""Flows whole, on the fake engine and a real Prefect server of the tests' own."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from flow_runs import EXPERIMENTS, LATENTS, SMOKE, Place, place, summary

from esr.engine import Request
from esr.engine.fake import FakeEngine
from esr.store import Store

pytestmark = pytest.mark.slow

TRIALS = LATENTS * SMOKE["exp01"]["trials_per_latent"]
ARMS = {
    "exp01": {"baseline"},
    "exp02": None,
    "exp03": {"detectors", "detectors-recalibrated"},
    "exp04": {
        "base",
        "base-unsteered",
        "self_monitor",
        "10",
        "10-unsteered",
        "50",
        "50-unsteered",
        "50-self_monitor",
        "steered-50",
        "steered-50-unsteered",
        "steered-50-self_monitor",
    },
    "exp05": {"self_monitor", "stay_on_topic"},
    "exp07": set(),  # it makes no arm of its own
    "exp06": {"shown"},
    "exp08": {"no-steering"},
    "exp09": {"episodes", "restart-free", "unsteered"},
    "exp10": {"matched-0", "matched-0-recalibrated", "uniform-0"},
    "exp11": {f"{condition}-{cut}" for condition in ("on", "off", "detectors", "matched") for cut in ("30", "60", "sentence")},
    "exp12": {"own", "on-topic", "shuffled", "none", "unsteered"},
    "exp13": {"steered", "relative-0.5", "relative-1.5", "clamp_projection", "project_out", "generated"},
    "exp14": {"prompt", "generated", "first-16", "from-16", "rising", "fading", "until-restart"},
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[Place]:
    """All experiments run once, one after the other, in this process."""
    where = place(tmp_path_factory.mktemp("flows"))
    with where.prefect(prefect_api):
        for name in EXPERIMENTS:
            flow(name)("tiny", scale="smoke")
        yield where


def flow(name: str):  # type: ignore[no-untyped-def]  # a Prefect flow, whose type says nothing here
    return getattr(importlib.import_module(f"flows.{name}"), name)


def test_every_experiment_grades_every_trial_that_it_plans(here: Place) -> None:
    rows = {
        (row["experiment"], row["arm"]): row for row in summary(here) if row["judge"] == "lexical"
    }  # exp07's other judge grades a sample
    for experiment, arms in ARMS.items():
        found = {arm for name, arm in rows if name == experiment}
        assert found if arms is None else found == arms
    assert all(row["n_planned"] == row["n_graded"] > 0 and row["n_missing"] == 0 for row in rows.values())


def test_a_second_run_computes_nothing(here: Place) -> None:
    made, shards = here.generated(), sorted((here.store / "shards" / "replies").iterdir())
    for name in EXPERIMENTS:
        flow(name)("tiny", scale="smoke")
    assert here.generated() == made
    assert sorted((here.store / "shards" / "replies").iterdir()) == shards


def test_a_plan_finds_every_trial_that_a_run_has_left(here: Place) -> None:
    from flows import stages
    from tasks.run import Run

    own = "select count(distinct trial_id) as n from members where experiment = ? or (? and experiment = 'exp01')"
    for name in ("exp01", "exp02", "exp05", "exp11", "exp12", "exp13", "exp14"):
        run = Run.of(name, "tiny", "smoke")
        (n,) = Store(here.store).sql(own, [name, run.experiment.baseline])["n"].to_pylist()
        found = stages.there(run)
        assert (found.known, found.trials, found.replies, found.grades) == (True, n, n, n), name


def test_no_trial_is_generated_twice_over_all_experiments(here: Place) -> None:
    assert set(here.generated().values()) == {1}


def test_replays_keep_latent_question_and_seed(here: Place) -> None:
    rows = Store(here.store).sql("select experiment, arm, latent, question, seed from outcomes").to_pylist()
    keys: dict[tuple[str, str], set[tuple[int, str, int]]] = {}
    for row in rows:
        keys.setdefault((row["experiment"], row["arm"]), set()).add((row["latent"], row["question"], row["seed"]))
    base = keys[("exp01", "baseline")]
    for (experiment, arm), some in keys.items():
        if experiment in ("exp12", "exp13"):  # of new seeds, of directions
            continue
        whole = experiment in ("exp03", "exp05", "exp08", "exp10") and not arm.endswith("-recalibrated")
        assert some == base if whole else some <= base


def test_recalibrated_arms_steer_at_thresholds_found_under_their_clamp(here: Place) -> None:
    store = Store(here.store)
    found = store.sql("select latent, threshold, clamped from thresholds where clamped is not null").to_pylist()
    sets = {tuple(row["clamped"]) for row in found}
    assert len(sets) == 2  # the detectors' and the matched set's
    for arm in ("detectors-recalibrated", "matched-0-recalibrated"):
        rows = store.sql(
            "select m.latent, m.boost, m.threshold, t.ops from current_members m join trials t using (trial_id) where m.arm = ?",
            [arm],
        ).to_pylist()
        assert rows
        for row in rows:
            held = tuple(sorted(op["latent"] for op in row["ops"] if op["kind"] == "clamp"))
            assert held in sets
            (anew,) = {one["threshold"] for one in found if one["latent"] == row["latent"] and tuple(one["clamped"]) == held}
            assert row["boost"] == anew
        own = store.sql("select latent, threshold from thresholds where clamped is null").to_pylist()
        assert {row["threshold"] for row in rows} <= {one["threshold"] for one in own}


def test_latents_whose_clamp_breaks_the_model_cost_one_arm_and_no_other(
    tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import stages

    said: list[str] = []
    whole = FakeEngine._reply

    def broken(self: FakeEngine, prompt: str, request: Request) -> str:
        return "a a a a" if any(op.kind == "clamp" for op in request.ops) else whole(self, prompt, request)

    monkeypatch.setattr(FakeEngine, "_reply", broken)
    monkeypatch.setattr(stages.log, "warning", lambda line, *given: said.append(line % given))
    where = place(tmp_path)
    params = where.root / "params.yaml"
    text = params.read_text()
    few, enough = "search_steps: 3\n      samples_per_step: 2", "search_steps: 8\n      samples_per_step: 6"
    assert few in text
    params.write_text(text.replace(few, enough))  # to be sure that every boost is too much
    with where.prefect(prefect_api):
        flow("exp10")("tiny", scale="smoke")
    own = {row["arm"]: row for row in summary(where) if row["experiment"] == "exp10"}
    assert set(own) == {"matched-0", "uniform-0"}
    assert all(row["n_graded"] == row["n_planned"] == TRIALS for row in own.values())
    (told,) = [line for line in said if "has no trials" in line]
    assert told.startswith(
        "exp10/matched-0-recalibrated has no trials: none of 6 latents of 'tiny' meets the target at any boost while "
    )
    found = Store(where.store).sql("select status from thresholds where clamped is not null")["status"].to_pylist()
    assert len(found) == LATENTS


def test_controls_are_neither_detectors_nor_distractors(here: Place) -> None:
    store = Store(here.store)
    kinds: dict[str, set[int]] = {}
    for row in store.sql("select kind, latent from detectors").to_pylist():
        kinds.setdefault(row["kind"], set()).add(row["latent"])
    steered = set(store.sql("select distinct latent from members where experiment <> 'exp13'")["latent"].to_pylist())
    assert kinds["detector"]
    sets = store.sql("select latent, count(distinct set_id) as n from detectors where kind = 'matched' group by latent")
    assert set(sets["n"].to_pylist()) == {1}
    for control in ("matched", "uniform"):
        assert len(kinds[control]) == len(kinds["detector"])
        assert not kinds[control] & (kinds["detector"] | steered)


def test_each_run_leaves_a_manifest_and_its_artifacts(here: Place) -> None:
    from prefect.client.orchestration import get_client

    runs = Store(here.store).sql("select experiment, status from runs").to_pylist()
    assert {row["experiment"] for row in runs if row["status"] == "completed"} == set(EXPERIMENTS)
    with get_client(sync_client=True) as client:
        keys = {artifact.key for artifact in client.read_artifacts()}
    for name in EXPERIMENTS:
        usual = ("figure", "made") if name == "exp07" else ("closing", "replies", "figure", "made")
        assert {f"{name}-tiny-engine-fake-smoke-lexical-{what}" for what in usual} <= keys


def test_each_run_is_recorded_once_with_its_judge(here: Place) -> None:
    rows = Store(here.store).sql("select experiment, judge, status, finished_at > started_at as ended from runs").to_pylist()
    assert len(rows) >= len(EXPERIMENTS)
    assert {(row["judge"], row["status"], row["ended"]) for row in rows} == {("lexical", "completed", True)}


def test_a_flow_run_stays_far_below_three_hundred_task_runs() -> None:
    from flows import stages

    for n in (1, 250, 27_500, 10**6):
        assert -(-n // stages._size(n, 250)) <= stages.SHARDS
    assert 5 * stages.SHARDS < 300


def test_figures_lie_in_the_store(here: Place) -> None:
    names = {file.name for file in (here.store / "figures").iterdir()}
    assert {f"{name}-tiny+fake-smoke.{kind}" for name in EXPERIMENTS for kind in ("png", "pdf", "json")} <= names


def test_a_changed_plan_takes_the_old_ones_place(here: Place, tmp_path: Path) -> None:
    text = (here.root / "params.yaml").read_text()
    changed = text.replace(f"trials_per_latent: {SMOKE['exp01']['trials_per_latent']}", "trials_per_latent: 2")
    assert changed != text
    try:
        (here.root / "params.yaml").write_text(changed)
        flow("exp01")("tiny", scale="smoke")
        rows = [row for row in summary(here) if (row["experiment"], row["judge"]) == ("exp01", "lexical")]
        assert [row["n_planned"] % 2 == 0 and row["n_planned"] <= 2 * LATENTS for row in rows] == [True]
    finally:
        (here.root / "params.yaml").write_text(text)
        flow("exp01")("tiny", scale="smoke")


def test_a_checkpoint_is_a_model_of_every_experiment(here: Place) -> None:
    flow("exp09")("tiny-plain:50-1", scale="smoke")
    store = Store(here.store)
    arms = store.sql("select distinct experiment || '/' || arm as arm from outcomes where model = 'tiny-plain:50-1'")[
        "arm"
    ].to_pylist()
    assert {"exp01/baseline", "exp09/unsteered"} < set(arms)
    assert {"exp09/episodes", "exp09/astray"} & set(arms)
    assert (here.store / "figures" / "exp09-tiny-plain:50-1+fake-smoke.png").is_file()
