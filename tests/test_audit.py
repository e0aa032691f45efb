"""The audit: sheets drawn and taken back, rates corrected by labels, and sheets that cannot be used."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from store_rows import grade, member, reply

from esr.__main__ import main
from esr.count.audit import LABELS, allocation, audited, stratum
from esr.errors import DataError
from esr.store import Store

WORDS = {
    "single": "Put the pot on the stove and wait for it to boil.",
    "multi": "The castle is old. Wait, that is not right. Let me try again. Put the pot on the stove.",
}
"""The restart detector sees one in the second."""


def filled(root: Path, trials: int = 480) -> tuple[Store, dict[str, str]]:
    """A baseline whose judge misses a tenth of corrections; what is true of each reply."""
    store, rng = Store(root), np.random.default_rng(3)
    members = [member(i, arm="baseline", scale="full") for i in range(trials)]
    members = [replace(m, trial=replace(m.trial, latent=replace(m.trial.latent, index=i % 24))) for i, m in enumerate(members)]
    truth, replies, grades = {}, [], []
    for m in members:
        is_corrected = rng.random() < 0.2
        said = rng.random() < (0.9 if is_corrected else 0.015)
        truth[m.trial.id] = "corrected" if is_corrected else "single"
        replies.append(reply(m, WORDS["multi" if is_corrected else "single"]))
        grades.append(grade(m, *((10.0, 60.0) if said else (10.0,))))
    store.put_members(members)
    store.put_replies(replies)
    store.put_grades(grades)
    return store, truth


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, dict[str, str], Path]:
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    store, truth = filled(tmp_path / "store")
    assert main(["audit", "draw", "exp01/tiny", "--n", "120", "--to", str(tmp_path / "sheet.csv")]) == 0
    return store, truth, tmp_path / "sheet.csv"


def lines(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def save(file: Path, rows: list[dict[str, str]], columns: list[str] | None = None, delimiter: str = ",") -> Path:
    with file.open("w", newline="") as text:
        out = csv.DictWriter(text, columns or list(rows[0]), delimiter=delimiter, extrasaction="ignore")
        out.writeheader()
        out.writerows(rows)
    return file


def labelled(store: Store, truth: dict[str, str], file: Path) -> list[dict[str, str]]:
    of = {row["item"]: row["trial_id"] for row in store.sql("select item, trial_id from audited").to_pylist()}
    return [{**row, "label": truth[of[row["item"]]], "reason": "it says so", "author": "ada"} for row in lines(file)]


def test_a_sheet_is_blind_and_its_chances_are_kept(here: tuple[Store, dict[str, str], Path]) -> None:
    store, _, file = here
    rows = lines(file)
    assert list(rows[0]) == ["sheet", "item", "question", "reply", "label", "reason", "author"]
    assert len(rows) == 120
    assert "baseline" not in file.read_text()
    assert "label 1" not in file.read_text()
    frame = store.sql("select * from audit_sheets").to_pandas()
    assert len(frame) == 480
    for _, some in frame.groupby("stratum"):
        assert some["item"].notna().sum() == pytest.approx(some["probability"].iloc[0] * len(some))
    assert frame["item"].notna().sum() == 120
    shares = frame.groupby("stratum")["probability"].first()
    assert shares["single"] < 0.2 < 0.8 < shares["single+restart"]  # most labels go where judge and detector differ


def test_the_same_draw_again_is_the_same_sheet_and_never_written_over(here, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]  # pytest's own
    store, _, file = here
    assert main(["audit", "draw", "exp01/tiny", "--n", "120", "--to", str(tmp_path / "again.csv")]) == 0
    assert (tmp_path / "again.csv").read_text() == file.read_text()
    before = store.sql("select count(*) as n from audit_sheets").to_pylist()
    assert main(["audit", "draw", "exp01/tiny", "--n", "120", "--to", str(file)]) == 2
    assert "is there already and may hold labels" in capsys.readouterr().err
    assert store.sql("select count(*) as n from audit_sheets").to_pylist() == before == [{"n": 480}]


def test_labels_correct_the_judges_rate_in_table_sql_and_export(here, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]  # pytest's own
    store, truth, file = here
    save(file, labelled(store, truth, file))
    assert main(["audit", "read", str(file)]) == 0
    assert "120 labels read, 120 of them new, 0 lines still empty" in capsys.readouterr().out
    real = np.mean([one == "corrected" for one in truth.values()])
    (row,) = store.sql("select * from audited_rates").to_pylist()
    assert row["judge_esr_rate"] < real
    assert row["esr_rate"] == pytest.approx(real, abs=0.02)
    assert row["esr_sensitivity"] == pytest.approx(0.9, abs=0.07)
    assert main(["table", "exp01", "tiny", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["arms"][0]
    one = told["audited"]["esr_rate"]
    assert told["metrics"]["esr_rate"]["value"] == pytest.approx(row["judge_esr_rate"]) == one["judge"]
    assert one["post_stratified"]["value"] == pytest.approx(row["esr_rate"])
    assert one["sensitivity"]["value"] == pytest.approx(row["esr_sensitivity"])
    assert one["specificity"]["value"] == pytest.approx(row["esr_specificity"])
    low, high = one["post_stratified"]["interval"]
    assert low < real < high
    alone = one["labels_alone"]["interval"]
    assert high - low <= alone[1] - alone[0] + 1e-9
    assert main(["table", "exp01", "tiny"]) == 0
    said = capsys.readouterr().out
    assert "Audited by people" in said
    assert "120 of 480" in said


def test_figures_show_labels_beside_the_bars_and_nothing_without_them(here, tmp_path) -> None:  # type: ignore[no-untyped-def]  # pytest's own
    from esr import experiment as experiments
    from esr.params import load
    from esr.show import recorded
    from esr.show.figures import rates

    store, truth, file = here
    experiment, params = experiments.find("exp01"), load("tiny")
    chosen = experiment.selection("tiny", "full", "lexical", "vllm")
    bare = recorded.recorded(store, params, experiment, chosen)
    assert "audited" not in bare.about
    save(file, labelled(store, truth, file))
    main(["audit", "read", str(file)])
    found = recorded.recorded(store, params, experiment, chosen)
    recorded.write(found, tmp_path / "export")
    _, drawn = rates.panels(recorded.read(tmp_path / "export"), "title")
    assert drawn["arms"][0]["esr_rate"]["audited"]["labelled"] == 120  # type: ignore[index]  # the JSON of a figure
    assert drawn["arms"][0]["esr_rate"]["value"] == pytest.approx(100 * bare.outcomes["corrected"].mean())  # type: ignore[index]  # the same


def test_a_label_read_again_changes_nothing_and_a_new_one_stands_with_the_old_kept(here, capsys) -> None:  # type: ignore[no-untyped-def]  # pytest's own
    store, truth, file = here
    rows = labelled(store, truth, file)
    rows[0]["label"] = ""
    save(file, rows, delimiter=";")
    main(["audit", "read", str(file)])
    main(["audit", "read", str(file)])
    assert "119 labels read, 0 of them new, 1 lines still empty" in capsys.readouterr().out
    rows[1] |= {"label": "multi", "reason": "no better", "author": ""}
    save(file, rows)
    assert main(["audit", "read", str(file), "--author", "bob"]) == 0
    kept = store.sql(
        "select label, author, reason from audit_labels where item = ? order by labelled_at", [rows[1]["item"]]
    ).to_pylist()
    assert [row["author"] for row in kept] == ["ada", "bob"]
    (now,) = store.sql("select label, author, reason from audited where item = ?", [rows[1]["item"]]).to_pylist()
    assert now == {"label": "multi", "author": "bob", "reason": "no better"}


BAD = {
    "item": "which is not on the sheet; its ids must stay as drawn",
    "sheet": "which was not drawn from this store",
    "twice": "a second time",
    "label": "has the label 'maybe'; it should be one of single, multi, corrected, or empty",
    "column": "lacks the column 'label'; a sheet has",
    "author": "has a label and no author",
    "sheets": "holds lines of 2 sheets",
}


def spoilt(what: str, rows: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[str] | None]:
    """The lines of a sheet with one thing wrong, and its columns where they are not all."""
    last, columns = dict(rows[-1]), None
    if what == "item":
        last["item"] = last["item"][:-1] + ("0" if last["item"][-1] != "0" else "1")
    elif what in ("sheet", "sheets"):
        last["sheet"] = "0123456789ab"
    elif what == "label":
        last["label"] = "maybe"
    elif what == "author":
        last["author"] = ""
    elif what == "column":
        columns = [name for name in last if name != "label"]
    before = [] if what == "sheet" else rows if what == "twice" else rows[:-1]
    return [*before, last], columns


def test_a_sheet_that_cannot_be_used_is_one_sentence_and_nothing_of_it_is_taken(here, capsys) -> None:  # type: ignore[no-untyped-def]  # pytest's own
    store, truth, file = here
    good = labelled(store, truth, file)
    for what, said in BAD.items():
        save(file, *spoilt(what, good))
        capsys.readouterr()
        assert main(["audit", "read", str(file)]) == 2, what
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert store.sql("select count(*) as n from audit_labels").to_pylist() == [{"n": 0}]


def frame(label: list[str | None]) -> pd.DataFrame:
    """12 latents × 10 trials: the judge says no of eight of ten."""
    n = 120
    multi = np.tile([False] * 8 + [True] * 2, 12)
    return pd.DataFrame(
        {
            "latent": np.repeat(np.arange(12), 10),
            "stratum": [stratum(m, m, False) for m in multi],
            "multi": multi,
            "corrected": multi,
            "label": (label * n)[:n],
        }
    )


def test_the_corrected_rate_worked_by_hand() -> None:
    found = audited(frame(["corrected", *["single"] * 3, *[None] * 4, "corrected", "single"]))["esr_rate"]
    assert found.judge == pytest.approx(0.2)
    assert found.post_stratified.value == pytest.approx(0.8 * 0.25 + 0.2 * 0.5)
    assert found.labels_alone.value == pytest.approx(found.post_stratified.value)
    assert found.ppi.value == pytest.approx(found.post_stratified.value)  # verdicts are alike within strata, so they tell no more
    assert found.sensitivity.value == pytest.approx(0.1 / 0.3)
    assert found.specificity.value == pytest.approx(0.6 / 0.7)
    assert (found.labelled, found.trials) == (72, 120)


def test_a_stratum_without_a_label_is_said_and_never_guessed() -> None:
    found = audited(frame([*["single"] * 8, None, None]))["esr_rate"]
    assert (found.post_stratified.value, found.post_stratified.no_interval) == (None, "1 stratum has no label")


def test_labels_that_are_all_alike_leave_an_interval_that_is_not_empty() -> None:
    found = audited(frame([*["single"] * 8, "corrected", "corrected"]))["esr_rate"].post_stratified
    assert found.value == pytest.approx(0.2)
    assert found.interval is not None
    assert found.interval.low < 0.2 < found.interval.high


def test_allocation_takes_all_of_what_is_rare_and_never_more_than_there_is() -> None:
    taken = allocation({"single": 4000, "single+restart": 30, "corrected+restart": 200, "multi": 2}, 200)
    assert sum(taken.values()) == 200
    assert (taken["single+restart"] >= 16, taken["multi"]) == (True, 2)
    assert allocation({"single": 3, "multi": 2}, 200) == {"single": 3, "multi": 2}
    with pytest.raises(DataError, match="cannot stand for 2 strata"):
        allocation({"single": 3, "multi": 2}, 1)


def test_every_label_is_a_word_of_the_verdicts() -> None:
    assert set(LABELS) == {stratum(m, c, False) for m, c in ((False, False), (True, False), (True, True))}
