"""A study of one's own in one call, and what a notebook shows of it."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from flow_runs import Place, place

from esr.errors import DataError, ParamsError
from esr.show import inline
from esr.study import replays
from esr.study.plan import suffixed, unsteered
from esr.study.study import Study

CHANGES = {"told": suffixed("self_monitor"), "quiet": unsteered}


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    found = place(tmp_path_factory.mktemp("own"))
    with pytest.MonkeyPatch.context() as patch:
        for key, value in found.env.items():
            patch.setenv(key, value)
        yield found


@pytest.fixture(scope="module")
def done(where: Place) -> Study:
    study = Study.of("tiny", "smoke")
    replays.carry_out(study, "mine", CHANGES, latents=12, trials_per_latent=4)
    return study


def test_every_arm_has_the_same_trials_with_one_thing_changed(done: Study) -> None:
    counts = done.store.sql(
        "select arm, n_planned, n_graded, n_missing from summary where experiment = 'mine' order by arm"
    ).to_pylist()
    assert [row["arm"] for row in counts] == ["baseline", "quiet", "told"]
    assert {row["n_planned"] for row in counts} == {counts[0]["n_graded"]}
    assert counts[0]["n_graded"] % 4 == 0
    pairs = done.store.sql("select arm, count(*) as n, min(against) as against from pairs where experiment = 'mine' group by arm")
    assert {(row["n"], row["against"]) for row in pairs.to_pylist()} == {(counts[0]["n_graded"], "mine/baseline")}
    changed = done.store.sql("select arm, bool_and(ops = []) as quiet, bool_and(prompt != question) as told from members join trials "
                             "using (trial_id) where members.experiment = 'mine' group by arm order by arm").to_pylist()  # fmt: skip
    assert [(row["arm"], row["quiet"], row["told"]) for row in changed] == [
        ("baseline", False, False),
        ("quiet", True, False),
        ("told", False, True),
    ]


def test_given_again_it_computes_nothing(done: Study, where: Place) -> None:
    before = where.generated()
    again = replays.carry_out(Study.of("tiny", "smoke"), "mine", CHANGES, latents=12, trials_per_latent=4)
    assert where.generated() == before
    assert len(again) == 3 * sum(member.arm.name == "told" for member in again)


def test_the_table_has_a_line_an_arm_with_its_n_and_what_differs_in_pairs(done: Study) -> None:
    shown = inline.table(done, "mine")
    assert isinstance(shown, pd.DataFrame)
    assert list(shown.index) == ["baseline", "told", "quiet"]
    assert len(set(shown["n"])) == 1
    assert shown["ESR − baseline"]["baseline"] == ""
    assert shown["ESR − baseline"]["quiet"] != ""


def test_the_figure_names_every_arm_and_what_it_is_of(done: Study, tmp_path: Path) -> None:
    drawn = inline.figure(done, "mine")
    assert drawn.title == drawn.canvas.get_suptitle() == "mine: tiny (fake engine) (smoke)"
    assert [label.get_text() for label in drawn.canvas.axes[0].get_yticklabels()] == ["baseline", "told", "quiet"]
    assert drawn.save(tmp_path / "mine.png").read_bytes() == drawn._repr_png_() == inline.figure(done, "mine").png


def test_it_takes_no_experiments_name_and_no_second_baseline(where: Place) -> None:
    study = Study.of("tiny", "smoke")
    with pytest.raises(ParamsError, match="'exp01' is an experiment of flows/"):
        replays.carry_out(study, "exp01", CHANGES, latents=2, trials_per_latent=1)
    with pytest.raises(ParamsError, match="give the change another name"):
        replays.carry_out(study, "mine", {"baseline": unsteered}, latents=2, trials_per_latent=1)


def test_what_was_never_run_cannot_be_shown(where: Place) -> None:
    with pytest.raises(DataError, match="never has no graded trials"):
        inline.table(Study.of("tiny", "smoke"), "never")
