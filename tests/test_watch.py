"""Experiments 6 and 9 without Prefect: from graded replies of the fake engine to tables and figures."""

import csv
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from esr import experiment as experiments
from esr.engine.fake import FakeEngine
from esr.errors import DataError
from esr.experiment import Selection
from esr.params import HOME, load
from esr.prompts import evaluation
from esr.show import episode_tables, timing_table, trace_table
from esr.show.figures import episodes as drawn
from esr.show.figures import traces as traced
from esr.show.recorded import Recorded
from esr.show.seen import seen
from esr.store import Store
from esr.study import grade, steer, traces, watch
from esr.study.detect import Detector
from esr.study.episodes import Episode, Watching, episodes
from esr.study.plan import plan, replay
from esr.study.study import Study
from esr.study.traces import Case, Traces
from esr.types import BASELINE, Latent, Member

pytestmark = pytest.mark.slow
LATENTS, EACH = 14, 8
SELECTION = Selection("exp09", "tiny", "full", "lexical", engine="fake")


@dataclass(frozen=True)
class Done:
    study: Study
    episodes: list[Episode]
    watched: watch.Watched
    lists: dict[str, list[Latent]]
    baseline: list[Member]


def params_file(root: Path) -> Path:
    """As shipped, with labels of the fake latents and what counts as active there."""
    tree = yaml.safe_load((HOME / "params.yaml").read_text())
    subjects = [line.split("\t")[0] for line in (HOME / "esr/organism/data/subjects.tsv").read_text().splitlines()[1:]]
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("index_in_sae", "label"), *((5 * i + 3, subjects[i % len(subjects)]) for i in range(40))])
    tree["saes"]["tiny-l3"]["labels"] = str(root / "labels.csv")
    tree["by_model"]["tiny"]["exp09"] = {"contrast_active": 1e-8, "window": 20, "soon": 4, "hold": 2, "lead": 12}
    tree["by_model"]["tiny"]["exp06"] = {"examples": 3}
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return root / "params.yaml"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    root = tmp_path_factory.mktemp("watch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESR_ENGINE", "fake")
        patch.setenv("ESR_PARAMS", str(params_file(root)))
        patch.setenv("ESR_STORE", str(root / "store"))
        study = Study(load("tiny"), "tiny", Store())
        engine = study.engine
        assert isinstance(engine, FakeEngine)
        latents = study.labels[:LATENTS]
        members = plan(
            study.params, arm=BASELINE, model="tiny", weights=study.weights, meaning=study.meaning, latents=latents,
            thresholds={latent.index: engine.bite(latent.index) for latent in latents}, questions=evaluation(), trials_per_latent=EACH,
        )  # fmt: skip
        carried_out(study, members)
        found = watch.chosen(study, members, "lexical")
        watched = watch.arms(found, members)
        carried_out(study, watched.members)
        watch.mark(study, found, watched, "lexical", None)
        watch.largest(study, watched)
        detectors = [Detector(k, "", "detector", i, 0, 0, 1, 1) for i, k in enumerate(list(engine.detectors)[:4])]
        lists = watch.lists(study, found, "lexical", detectors)
        watch.read(study, watched, lists)
        yield Done(study, found, watched, lists, members)


def carried_out(study: Study, members: list[Member]) -> None:
    study.store.put_members(members)
    steer.replies(study, [member.trial for member in members])
    grade.grades(study, members, study.grader)


def test_every_episode_stands_beside_its_controls(done: Done) -> None:
    assert len(done.episodes) >= 12
    assert len({one.latent for one in done.episodes}) >= 8
    known = {member.trial.id: member.trial for member in done.baseline}
    for one in done.episodes:
        assert one.gain > 0
        if one.control is not None:
            assert known[one.control].latent.index == one.latent
            assert one.control != one.trial_id
    beside = [one.control for one in done.episodes if one.control]
    assert len(beside) == len(set(beside))
    assert [m.trial.seed for m in done.watched.unsteered] == [one.seed for one in done.episodes]
    assert not any(m.trial.ops for m in done.watched.unsteered)


def test_nothing_is_read_twice_and_a_tail_is_made_up(done: Done) -> None:
    assert watch.read(done.study, done.watched, done.lists) == 0
    assert watch.largest(done.study, done.watched) == 0
    assert watch.mark(done.study, done.episodes, done.watched, "lexical", None) == 0
    with pytest.raises(DataError, match="is an episode by 'nobody'"):
        watch.chosen(done.study, done.baseline, "nobody")


def test_means_by_region_agree_with_the_stores_own_view(done: Done) -> None:
    rows = episode_tables.by_region(done.study.store, SELECTION)
    assert set(rows["steering"]) == {"on", "off"}
    assert len(rows[(rows["steering"] == "on") & (rows["list"] == "detectors")]) == len(done.episodes)
    detectors = [latent.index for latent in done.lists["detectors"]]
    view = done.study.store.sql(
        "select trial_id, kind, avg(mean) as mean from region_activations where steering = 'on' and list_contains(?, latent) "
        "and kind in ('off-topic', 'correction', 'on-topic') group by trial_id, kind", [detectors]
    ).to_pandas().pivot(index="trial_id", columns="kind", values="mean")  # fmt: skip
    mine = rows[(rows["steering"] == "on") & (rows["list"] == "detectors")].set_index("trial_id")
    for kind in ("off-topic", "correction", "on-topic"):
        both = pd.concat([mine[kind], view[kind]], axis=1, join="inner").dropna()
        assert len(both) > 0.8 * len(mine)
        assert np.allclose(both.iloc[:, 0], both.iloc[:, 1], atol=1e-5), kind


def test_what_is_compared_has_its_interval_or_says_why_not(done: Done) -> None:
    """The fake engine's detectors answer to foreign words and know nothing of restarts."""
    compared = episode_tables.compared(done.study.store, SELECTION)
    whole = compared[(compared["list"] == "detectors") & (compared["latent"] == -1) & (compared["steering"] == "on")].set_index(
        ["one", "other"]
    )
    assert whole.loc[("off-topic", "on-topic"), "value"] > 0
    assert whole.loc[("off-topic", "unsteered"), "value"] > 0
    single = compared[(compared["list"] == "detectors") & (compared["latent"] != -1)].dropna(subset=["p"])
    assert (single["p_holm"] >= single["p"] - 1e-12).all()
    timed = episode_tables.timed(done.study.store, SELECTION)
    row = timed[(timed["list"] == "detectors") & (timed["latent"] == -1) & (timed["steering"] == "on")].iloc[0]
    assert row["now_low"] < row["now_area"] < row["now_high"]
    assert row["kind"] == "unknown", "fewer than ten distractors have a restart-free reply"
    assert row["soon_no_interval"] == f"only {row['soon_latents']} latents"
    lines = timing_table.lines(compared, timed)
    assert {line["watched"] for line in lines} == set(timed["list"])
    assert all(line["off topic now"] != "–" for line in lines if line["watched"] == "detectors")
    text = timing_table.markdown(lines)
    heads = [head.split(" | ") for head in text.splitlines() if head.startswith("| watched | ")]
    assert [len(head) for head in heads] == [5, 6], "a page of Prefect cuts what is wider"
    assert all(value.replace(" [", "<br>[") in text for line in lines for value in line.values())


def test_the_distractors_that_latents_were_found_on_are_not_those_they_are_tested_on(done: Done) -> None:
    compared = episode_tables.compared(done.study.store, SELECTION)
    contrast = compared[(compared["list"] == "by-contrast") & (compared["one"] == "correction")]
    if contrast.empty:
        pytest.skip("none was found by contrast in these replies")
    assert contrast["n"].max() < len(done.episodes)


def test_curves_are_of_the_reply_alone_and_end_with_it(done: Done) -> None:
    rows = episode_tables.curves(done.study.store, SELECTION)
    found = seen(done.study.store, SELECTION)
    longest = max(found.regions[one.trial_id]["correction"][0] for one in done.episodes)
    own = rows[(rows["reply"] == "episodes") & (rows["list"] == "detectors") & (rows["steering"] == "on")]
    assert own["token"].min() == -min(longest, load("tiny").of(Watching).window)
    assert own.set_index("token").loc[-1, "n"] == len(done.episodes)
    assert own["n"].is_monotonic_increasing or own["n"].max() == len(done.episodes)


def recorded(done: Done, name: str) -> Recorded:
    declared = experiments.find(name)
    selection = declared.selection("tiny", "full", "lexical", "fake")
    tables = {table.name: table.read(done.study.store, selection) for table in declared.tables}
    return Recorded(
        tables, {"experiment": name, "model": "tiny", "scale": "full", "judge": "lexical", "confidence": 0.95, "arms": []}
    )


def test_the_figures_of_experiment_9_say_every_number_that_they_draw(done: Done) -> None:
    found = recorded(done, "exp09")
    _, data = drawn.curves(found, "t")
    assert data["lists"]["detectors"]["episodes"][-1]["n"] >= drawn.FEWEST
    _, data = drawn.regions(found, "t")
    values = {row["region"]: row["value"] for row in data["lists"]["detectors"]}
    assert values["off-topic"] > values["unsteered"]
    authors = found.tables["authors"]
    mine = found.tables["regions"]
    some = authors[(authors["list"] == "detectors") & (authors["steering"] == "on") & (authors["latent"] != -1)]
    assert some["off-topic"].mean() == pytest.approx(
        mine[(mine["list"] == "detectors") & (mine["steering"] == "on")]["off-topic"].mean()
    )


def test_an_episode_is_shown_whole_with_its_text(done: Done) -> None:
    settings = done.study.params.of(Traces)
    chosen = traces.shown(done.episodes, settings)
    assert len({one.latent for one in chosen}) == len(chosen) == 1 + settings.examples
    (named, *_) = traces.shown(done.episodes, settings.model_copy(update={"episode": done.episodes[-1].trial_id[:12]}))
    assert named is done.episodes[-1]
    with pytest.raises(DataError, match="no episode 'nothing'"):
        traces.shown(done.episodes, settings.model_copy(update={"episode": "nothing"}))
    members = replay(
        [m for m in done.watched.episodes if m.trial.id in {one.trial_id for one in chosen}], traces.SHOWN, lambda trial: trial
    )
    case = Case(latent=8, question="Explain how to calculate probability.", seed=621104, boost=9.4)
    study = done.study
    assert traces.published(study, None) == []
    members += traces.published(study, case)
    carried_out(study, members)
    watch.show(study, members, done.lists, "lexical")
    rows = trace_table.tokens(study.store, SELECTION)
    assert set(rows["trial_id"]) == {member.trial.id for member in members}
    for key, one in rows.groupby("trial_id"):
        (text,) = study.store.sql("select text from replies where trial_id = ?", [key])["text"].to_pylist()
        assert text.startswith("".join(one["text"]))
        assert len("".join(one["text"])) > 0.7 * len(text), "all but the last token"
    first = rows[rows["place"] == 0]
    assert list(dict.fromkeys(first["region"])) == ["prompt", "off-topic", "correction", "on-topic"]
    smooth, raw = first["detectors smoothed"].to_numpy(), first["detectors"].to_numpy()
    assert smooth[5] == pytest.approx(0.5 * raw[5] + 0.5 * smooth[4])
    found = recorded(done, "exp06")
    for draw in (traced.trace, traced.multiples, traced.onsets):
        figure, data = draw(found, "t")
        assert figure.axes
        assert data["title"] == "t"


@pytest.fixture(scope="module")
def none_returns(done: Done, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The same study, planned anew without the trials that restart: three of each distractor."""
    root = tmp_path_factory.mktemp("none") / "store"
    shutil.copytree(done.study.store.root, root)
    study, count = Study(done.study.params, "tiny", Store(root)), Counter[int]()
    again = {row["trial_id"] for row in study.store.sql("select trial_id from outcomes where multi").to_pylist()}
    members = []
    for member in done.baseline:
        if member.trial.id not in again and count[member.trial.latent.index] < 3:
            count[member.trial.latent.index] += 1
            members.append(member)
    study.store.put_members(members)
    found = watch.chosen(study, members, "lexical")
    watched = watch.arms(found, members)
    carried_out(study, watched.members)
    watch.mark(study, found, watched, "lexical", None)
    assert watch.largest(study, watched) == 0
    lists = watch.lists(
        study,
        found,
        "lexical",
        [Detector(one.index, "", "detector", i, 0, 0, 1, 1) for i, one in enumerate(done.lists["detectors"])],
    )
    watch.read(study, watched, lists)
    return Done(study, found, watched, lists, members)


def test_where_none_comes_back_replies_that_stay_off_topic_are_held_against_unsteered_ones(none_returns: Done) -> None:
    found, study = none_returns.episodes, none_returns.study
    assert len(found) >= 12
    assert not any(one.returns or one.control for one in found)
    assert {one.first_score < study.params.of(Watching).on_topic_score for one in found} == {True}
    assert {member.arm.key for member in none_returns.watched.members} == {"exp09/astray", "exp09/unsteered"}
    assert {member.arm.against for member in none_returns.watched.unsteered} == {"exp09/astray"}
    assert none_returns.lists["by-contrast"] == []
    told = recorded(none_returns, "exp09")
    rows = told.tables["timing"]
    row = rows[(rows["list"] == "detectors") & (rows["latent"] == -1) & (rows["steering"] == "on")].iloc[0]
    assert row["now_low"] <= row["now_area"] <= row["now_high"]
    assert row["now_area"] > 0.5, "the fake engine's detectors answer to foreign words"
    assert row["kind"] == "unknown"
    assert pd.isna(row["soon_area"])
    assert pd.isna(row["onset_value"])
    whole = told.tables["compared"].set_index(["steering", "list", "latent", "one", "other"])
    assert whole.loc[("on", "detectors", -1, "off-topic", "unsteered"), "value"] > 0
    assert whole.loc[("on", "detectors", -1, "off-topic", "on-topic"), "n"] == 0
    assert told.tables["curves"].empty
    assert told.tables["onsets"].empty
    text = timing_table.markdown(timing_table.lines(told.tables["compared"], rows))
    assert "unknown" in text
    figure, data = drawn.curves(told, "t")
    assert (figure.axes[0].texts[0].get_text(), data["lists"]) == (
        "tiny never comes back: there is no correction to lay replies side by side at",
        {},
    )
    _, data = drawn.regions(told, "t")
    values = {one["region"]: one["n"] for one in data["lists"]["detectors"]}
    assert values["off-topic"] == values["unsteered"] == len(found)
    assert values["correction"] == values["on-topic"] == values["restart-free"] == 0


def test_a_reply_that_stays_off_topic_is_shown_where_none_comes_back(none_returns: Done) -> None:
    study = none_returns.study
    chosen = traces.shown(none_returns.episodes, study.params.of(Traces))
    members = replay(
        [m for m in none_returns.watched.episodes if m.trial.id in {one.trial_id for one in chosen}],
        traces.SHOWN,
        lambda trial: trial,
    )
    carried_out(study, members)
    watch.show(study, members, none_returns.lists, "lexical")
    found = recorded(none_returns, "exp06")
    assert set(found.tables["tokens"]["trial_id"]) == {one.trial_id for one in chosen}
    assert set(found.tables["tokens"]["region"]) == {"prompt", "off-topic"}
    for draw in (traced.trace, traced.multiples, traced.onsets):
        assert draw(found, "t")[0].axes


def test_where_few_come_back_replies_that_stay_off_topic_stand_beside_them(done: Done) -> None:
    few = done.study.params.of(Watching).model_copy(update={"fewest": 99})
    found = episodes(done.study.store, "tiny", "full", "lexical", few)
    n = len(done.episodes)
    assert found[:n] == done.episodes
    assert len(found) > n
    assert not any(one.returns for one in found[n:])
    arms = watch.arms(found, done.baseline)
    assert [member.arm.key for member in arms.episodes] == ["exp09/episodes"] * n + ["exp09/astray"] * (len(found) - n)
    assert len(arms.unsteered) == len(found)
    assert {member.arm.against for member in arms.unsteered} == {"exp09/episodes"}
