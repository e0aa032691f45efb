"""Figures: drawn from exported files alone, every number beside them, the same results the same bytes."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from esr import experiment as experiments
from esr import params
from esr.count.agreement import pairs
from esr.count.metrics import NAMES
from esr.errors import DataError
from esr.show import figures
from esr.show import paper_table as report
from esr.show import recorded as export
from esr.show.figures import gains, rates, style, sweep
from esr.show.figures.__main__ import main
from esr.show.figures.agreement import matrix
from esr.show.figures.numbers import paper
from esr.show.recorded import Recorded
from esr.show.tables import COLUMNS, ORDER
from esr.types import Arm


def outcomes(
    experiment: str, model: str, arm: str, multi_rate: float, first: float, boost: float = 5.0, n: int = 12
) -> pd.DataFrame:
    """n latents × 6 trials, seeded by the arm's name; questions and seeds the same in every arm."""
    rng = np.random.default_rng(int(hashlib.sha256(f"{experiment}{arm}".encode()).hexdigest()[:8], 16))
    size = n * 6
    multi = rng.random(size) < multi_rate
    s1 = np.clip(rng.normal(first, 15, size), 0, 100)
    gain = np.where(multi, rng.normal(25, 30, size), 0.0)
    return pd.DataFrame(
        {
            "experiment": experiment,
            "model": model,
            "arm": arm,
            "judge": "lexical",
            "scale": "full",
            "trial_id": [f"{experiment}{arm}{i}" for i in range(size)],
            "latent": np.repeat(np.arange(n), 6),
            "question": np.tile([f"q{i}" for i in range(6)], n),
            "seed": np.arange(size),
            "boost": boost,
            "threshold": 5.0,
            "n_attempts": 1 + multi.astype(int),
            "first_score": s1,
            "last_score": s1 + gain,
            "multi": multi,
            "corrected": multi & (gain > 0),
            "degraded": rng.random(size) < 0.1,
            "gain": gain,
        }
    )


BASE = ("exp01", "baseline", 0.3, 30)
LEVELS = (0.0, 1.0, 3.0, 5.0, 7.0, 9.0)
ARMS = {
    "exp01": [BASE],
    "exp02": [("exp02", f"absolute-{v:g}", 0.4 - abs(v - 4) / 15, 90 - 9 * v) for v in LEVELS]
    + [("exp02", f"relative-{v:g}", 0.4 - abs(v - 1) / 5, 90 - 40 * v) for v in (0.0, 0.5, 1.0, 1.5, 2.0)],
    "exp03": [BASE, ("exp03", "detectors", 0.15, 32)],
    "exp04": [
        ("exp04", "base", 0.02, 30),
        ("exp04", "self_monitor", 0.05, 30),
        ("exp04", "base-unsteered", 0.0, 90),
        *(("exp04", f"{ratio}-{seed}", ratio / 200, 30) for ratio in (10, 50, 90) for seed in (1, 2)),
        *(("exp04", f"{ratio}-{seed}-unsteered", 0.02, 90) for ratio in (10, 50, 90) for seed in (1, 2)),
        *(("exp04", f"steered-50-{seed}", 0.4, 30) for seed in (1, 2)),
        *(("exp04", f"steered-50-{seed}-unsteered", 0.01, 90) for seed in (1, 2)),
    ],
    "exp05": [BASE, *(("exp05", v, 0.5, 35) for v in params.load("tiny").experiments["exp05"]["variants"])],
    "exp08": [BASE, ("exp08", "no-steering", 0.0, 90)],
    "exp10": [
        BASE,
        ("exp03", "detectors", 0.15, 32),
        *(("exp10", f"{kind}-{i}", 0.28, 30) for kind in ("matched", "uniform") for i in range(3)),
    ],
}


def recorded(experiment: str, model: str = "tiny") -> Recorded:
    rows = pd.concat([outcomes(e, model, a, m, f) for e, a, m, f in ARMS[experiment]], ignore_index=True)
    told = [about_arm(e, a) for e, a, *_ in ARMS[experiment]]
    about = {"experiment": experiment, "model": model, "scale": "full", "judge": "lexical", "arms": told, "tables": ["outcomes"]}
    about |= {"exclude_degraded": False, "confidence": 0.95}
    return Recorded({"outcomes": rows.sort_values(ORDER, ignore_index=True)[list(COLUMNS)]}, about)


def about_arm(experiment: str, name: str) -> dict[str, object]:
    """As an export tells of an arm."""
    if experiment == "exp04":
        return about_tuned(name)
    kinds = {"exp01": "baseline", "exp03": "ablated", "exp05": "meta-prompt", "exp08": "unsteered"}
    root, _, level = name.rpartition("-")
    numbered = experiment in ("exp02", "exp10")
    spread = {"mean": 4.0, "std": 2.0} if experiment == "exp02" else {"mean": None, "std": None}
    place = float(level) if numbered else None
    return {
        "experiment": experiment, "arm": name, "kind": root if numbered else kinds[experiment], "level": place,
        "place": int(place or 0), "against": None if experiment == "exp01" else "exp01/baseline", **spread,
        "n_planned": 74, "n_graded": 72, "n_missing": 2,
    }  # fmt: skip


def about_tuned(name: str) -> dict[str, object]:
    """Of an arm of fine-tuning: `50-2-unsteered` is the checkpoint of ratio 50 and seed 2 without steering."""
    live = "-live" * name.startswith("steered-")
    ratio, _, rest = name.removeprefix("steered-").partition("-")
    checkpoint, quiet = ratio.isdigit(), name.endswith("-unsteered")
    kind = "unsteered" if quiet else "tuned" if checkpoint else "meta-prompt" if name == "self_monitor" else "base"
    against = ("exp04/base-unsteered" if quiet else "exp04/base") if checkpoint or kind == "meta-prompt" else None
    return {
        "experiment": "exp04", "arm": name, "kind": kind + live, "level": float(ratio) if checkpoint else 0.0,
        "place": int(rest.partition("-")[0]) if checkpoint else 0, "against": against, "mean": None, "std": None,
        "n_planned": 74, "n_graded": 72, "n_missing": 2,
    }  # fmt: skip


def changed(found: Recorded, rows: pd.DataFrame) -> Recorded:
    return Recorded({"outcomes": rows}, found.about)


def exported(tmp_path: Path, experiment: str, model: str = "tiny") -> Path:
    folder = tmp_path / "export" / experiment / model
    export.write(recorded(experiment, model), folder)
    return folder


@pytest.mark.parametrize("experiment", ARMS)
def test_every_experiment_draws_its_files_and_the_same_bytes_again(tmp_path, experiment):
    folder = exported(tmp_path, experiment)
    once = figures.redraw([folder], tmp_path / "a")
    again = figures.redraw([folder], tmp_path / "b")
    drawings = len(experiments.find(experiment).drawings())
    assert [p.suffix for p in once] == [*[".png", ".pdf", ".json"] * drawings, ".csv", ".json"]
    assert [p.read_bytes() for p in once] == [p.read_bytes() for p in again]


def test_nothing_is_drawn_where_nothing_changed_and_a_drawing_cut_off_is_made_again(tmp_path):
    folder = exported(tmp_path, "exp08")
    files = figures.redraw([folder], tmp_path)
    drawn = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files}

    export.write(export.read(folder), folder)
    figures.redraw([folder], tmp_path)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files} == drawn

    for half in files:  # a file that a killed drawing left half written
        half.write_bytes(half.read_bytes()[:100])
        figures.redraw([folder], tmp_path)
        if half != files[-1]:
            assert half.read_bytes() == drawn[half][0]
    files[0].unlink()
    figures.redraw([folder], tmp_path)
    assert {p: p.read_bytes() for p in files} == {p: data for p, (data, _) in drawn.items()}

    export.write(changed(export.read(folder), export.read(folder).outcomes[::2]), folder)
    figures.redraw([folder], tmp_path)
    assert files[3].read_bytes() != drawn[files[3]][0]


def test_an_export_read_back_is_what_was_written_and_the_same_bytes_again(tmp_path):
    found = recorded("exp10")
    files = export.write(found, tmp_path / "a")
    back = export.read(tmp_path / "a")
    pd.testing.assert_frame_equal(back.outcomes, found.outcomes, check_dtype=False)
    assert back.about == found.about
    assert [p.read_bytes() for p in export.write(back, tmp_path / "b")] == [p.read_bytes() for p in files]


def test_the_number_table_has_a_line_an_arm_and_metric(tmp_path):
    files = figures.redraw([exported(tmp_path, "exp03")], tmp_path)
    table = pd.read_csv(files[3])
    assert len(table) == 2 * len(NAMES)
    row = table[(table["arm"] == "detectors") & (table["metric"] == "multi_attempt_rate")].iloc[0]
    rows = recorded("exp03").outcomes
    ours, base = rows[rows["arm"] == "detectors"], rows[rows["arm"] == "baseline"]
    assert row["value"] == pytest.approx(ours["multi"].mean(), abs=1e-6)
    assert row["difference"] == pytest.approx(ours["multi"].mean() - base["multi"].mean(), abs=1e-6)
    assert (row["pairs"], row["missing"], row["planned"]) == (72, 2, 74)


def test_a_stamp_changes_when_and_only_when_results_do(tmp_path):
    found = recorded("exp01")
    export.stamp(found, tmp_path / "a.json")
    export.stamp(recorded("exp01"), tmp_path / "b.json")
    other = found.outcomes.assign(first_score=found.outcomes["first_score"] + 1e-9)
    export.stamp(changed(found, other), tmp_path / "c.json")
    a, b, c = ((tmp_path / f"{x}.json").read_text() for x in "abc")
    assert a == b != c


def test_every_drawn_bar_is_in_the_json_with_its_interval_and_n(tmp_path):
    data = json.loads(figures.redraw([exported(tmp_path, "exp03")], tmp_path)[2].read_text())
    assert [arm["arm"] for arm in data["arms"]] == ["baseline", "detectors"]
    rate = data["arms"][1]["esr_rate"]
    rows = recorded("exp03").outcomes
    corrected = rows[rows["arm"] == "detectors"]["corrected"]
    assert (rate["k"], rate["n"], rate["latents"], rate["no_interval"]) == (int(corrected.sum()), 72, 12, "")
    assert rate["method"]
    assert rate["n_effective"] <= 72
    assert rate["value"] == pytest.approx(100 * corrected.mean())
    assert rate["bounds"][0] < rate["value"] < rate["bounds"][1]
    assert rate["difference"]["pairs"] == 72
    assert rate["paper"] is None  # tiny is no published model


def test_the_papers_values_are_drawn_for_published_models_only(tmp_path):
    assert paper(Arm("exp01", "baseline"), "70b", "esr_rate") == pytest.approx(3.8)
    assert paper(Arm("exp10", "uniform-2", "uniform"), "70b", "esr_rate") == pytest.approx(4.2)
    assert paper(Arm("exp10", "matched-0", "matched"), "70b", "esr_rate") is None
    assert paper(Arm("exp01", "baseline"), "tiny", "esr_rate") is None
    assert paper(Arm("exp01", "baseline"), "8b", "esr_rate") is None  # reported as "< 1 %" only
    peaks = json.loads(figures.redraw([exported(tmp_path, "exp02", "70b")], tmp_path)[2].read_text())["paper_peaks"]
    assert peaks["improvement_rate"] == pytest.approx([-1.0, 83.0])
    data = json.loads(figures.redraw([exported(tmp_path, "exp03", "70b")], tmp_path)[2].read_text())
    assert data["arms"][1]["multi_attempt_rate"]["paper"] == pytest.approx(5.5)


def test_several_models_stand_small_to_large_in_one_figure(tmp_path):
    folders = [exported(tmp_path, "exp05", model) for model in ("70b", "tiny", "8b")]
    files = figures.redraw(folders, tmp_path)
    assert files[0].name == "exp05-models.png"
    assert set(json.loads(files[2].read_text())["models"]) == {"tiny", "8b", "70b"}
    with pytest.raises(DataError, match="one experiment"):
        figures.redraw([folders[0], exported(tmp_path, "exp01")], tmp_path)


def test_the_histogram_has_a_bin_around_zero_and_counts_multi_attempt_trials(tmp_path):
    data = json.loads(figures.redraw([exported(tmp_path, "exp01")], tmp_path)[2].read_text())
    histogram = data["models"]["tiny"]["histogram"]
    middle = [(a, b) for a, b in zip(histogram["edges"], histogram["edges"][1:], strict=False) if a < 0 < b]
    assert middle[0] == pytest.approx((-10 / 3, 10 / 3))
    assert histogram["n"] == int(recorded("exp01").outcomes["multi"].sum())


def test_an_arm_without_multi_attempt_trials_is_drawn_too(tmp_path):
    found = recorded("exp08")
    none = found.outcomes.assign(multi=False, corrected=False, gain=0.0)
    folder = tmp_path / "export" / "exp08" / "tiny"
    export.write(changed(found, none), folder)
    assert figures.redraw([folder], tmp_path)


def test_a_figure_is_named_by_its_place_in_the_paper():
    for name in experiments.experiments():
        found = experiments.find(name)
        if re.search(r"figure \d|A\.\d", found.paper):
            titles = [title for one in found.figures for title in (one.title, one.several.title if one.several else one.title)]
            assert [title for title in titles if not re.match(r"(Figure (A\.)?\d+|A\.\d\.\d)\. \S", title)] == [], name


def test_an_empty_histogram_has_an_axis_of_shares_and_a_point_at_zero_is_whole():
    found = recorded("exp08")
    none = changed(found, found.outcomes.assign(multi=False, corrected=False, gain=0.0))
    figure, _ = gains.rows([none], "no-steering", "Nothing")
    assert figure.axes[0].get_ylim() == (0, 100)
    figure, _ = sweep.ladders(recorded("exp02"), "Strength")
    points = [line for panel in figure.axes for line in panel.get_lines() if line.get_marker() == "o"]
    assert points
    assert not any(point.get_clip_on() for point in points)
    assert "a point without a bar" in " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


def test_no_bar_is_cut_where_models_stand_side_by_side():
    quiet = recorded("exp01", "tiny-plain")
    quiet = changed(quiet, quiet.outcomes.assign(multi=False, corrected=False, gain=0.0))
    for some in ([quiet, recorded("exp01")], [recorded("exp01"), quiet]):
        figure, data = gains.rows(some, "baseline", "By model")
        reach = [data["models"]["tiny"][metric]["bounds"][1] for metric in gains.RATES]
        for row in (figure.axes[1:3], figure.axes[4:6]):
            assert all(panel.get_xlim()[1] > high for panel, high in zip(row, reach, strict=True))


def test_an_arm_of_one_kind_has_one_look_and_its_own_name_in_every_figure():
    shades = {}
    for experiment in ("exp03", "exp10"):
        figure, _ = rates.panels(recorded(experiment), "Arms")
        first = figure.axes[0]
        names = [label.get_text() for label in first.get_yticklabels()]
        shades |= {(experiment, name): bar.get_facecolor() for name, bar in zip(names, first.patches, strict=True)}
    assert (
        shades["exp03", "baseline"] == shades["exp10", "baseline"] != shades["exp03", "detectors"] == shades["exp10", "detectors"]
    )
    figure, _ = rates.panels(recorded("exp05"), "Arms")
    assert "self_monitor" in [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_a_set_of_latents_under_whose_clamp_nothing_was_found_anew_is_named():
    def arm(name: str, kind: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, arm=Arm("exp10", name, kind))

    some = [arm("baseline", "baseline"), arm("matched-0", "matched"), arm("matched-0-recalibrated", "matched-recalibrated")]
    some += [arm("matched-1", "matched"), arm("uniform-0", "uniform")]
    assert rates.never_at_target(some) == ["matched-1"]
    assert rates.never_at_target(some[:1] + some[3:]) == []  # where nobody asked for any
    assert rates.never_at_target(some[:3]) == []


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(DataError, match="run the experiment"):
        figures.redraw([tmp_path / "export" / "exp08" / "tiny"], tmp_path)


def test_the_table_of_paper_and_ours_holds_what_was_run_and_nothing_else(tmp_path):
    text = report.table([exported(tmp_path, "exp03", "70b"), exported(tmp_path, "exp01", "tiny")])
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| exp0")]
    assert {(line[0].strip("| "), line[1], line[4]) for line in lines} == {
        ("exp03", "70b", "detectors"),
        ("exp01", "tiny", "baseline"),
    }
    esr = next(line for line in lines if line[1] == "70b" and line[5] == "ESR rate")
    rows = recorded("exp03").outcomes
    assert esr[6] == "2.8 %"
    assert esr[7] == f"{100 * rows[rows['arm'] == 'detectors']['corrected'].mean():.1f} %"
    assert esr[10].rstrip(" |").startswith("-22.2 (")
    assert all(line[6] == "–" for line in lines if line[1] == "tiny")


def test_the_command_line_draws_from_exports_and_says_in_one_line_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ESR_STORE", str(tmp_path))
    exported(tmp_path, "exp01")
    assert main(["draw", "exp01", "tiny"]) == 0
    assert (tmp_path / "figures" / "exp01-tiny.png").is_file()
    report.main()
    assert "| exp01 | tiny |" in (tmp_path / "figures" / "table.md").read_text()
    assert main(["draw", "exp05", "tiny"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_matrix_of_judges_is_drawn_with_every_number_beside_it(tmp_path):
    rows = recorded("exp01").outcomes
    judges = [rows, rows.assign(judge="strict", corrected=False), rows.assign(judge="late", multi=~rows["multi"])]
    found = pairs(pd.concat(judges))
    figure, data = matrix(found, "Judges")
    files = [tmp_path / f"agreement.{kind}" for kind in ("png", "pdf", "json")]
    style.save(figure, data, files)
    drawn = json.loads(files[2].read_text())["pairs"]
    assert {(p["judge"], p["other"]) for p in drawn} == {("late", "lexical"), ("late", "strict"), ("lexical", "strict")}
    alike = next(p for p in drawn if (p["judge"], p["other"]) == ("lexical", "strict"))
    assert (alike["multi"]["value"], alike["kappa"]["value"], alike["n"]) == (1, 1, 72)


def test_a_smoke_run_is_marked_in_its_figures_and_enters_no_table(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr("esr.show.figures.style.save", lambda *_: None)
    small = recorded("exp08")
    small.about["scale"] = "smoke"
    figure = replace(experiments.find("exp08").figures[0], draw=lambda _, title: titles.append(title) or (None, {}))
    for found in (recorded("exp08"), small):
        figures._drawn(figure, [found])
    assert titles[1] == f"{titles[0]} (smoke)"
    exported(tmp_path, "exp08")
    export.write(small, tmp_path / "export" / "exp08" / "tiny-smoke")
    exported(tmp_path, "exp01")
    monkeypatch.setenv("ESR_STORE", str(tmp_path))
    report.main()
    text = (tmp_path / "figures" / "table.md").read_text()
    assert "| exp08 | tiny | full | lexical |" in text
    assert "smoke" not in text


def test_a_smoke_run_changes_nothing_that_dvc_follows():
    from dvc.repo import Repo

    with Repo(str(params.HOME)) as repo:
        place = params.HOME / "store" / "export" / "exp01"
        ignored = [repo.dvcignore.is_ignored_dir(str(place / name)) for name in ("tiny-smoke", "tiny-smoke@haiku-4.5", "tiny")]
    assert ignored == [True, True, False]
