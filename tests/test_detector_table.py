"""The detectors' table in its three forms."""

import csv
import io
from pathlib import Path

import pytest

from esr.__main__ import main
from esr.show import detector_table
from esr.show.manuscript import detectors
from esr.store import Store


def detector(rank: int, label: str, set_id: str = "aa11") -> dict[str, object]:
    return {"set_id": set_id, "model": "tiny", "latent": 70 + rank, "label": label, "kind": "detector", "rank": rank, "matched_mean": 0.5,
            "matched_active": 0.025, "mismatched_mean": 12.3456, "mismatched_active": 0.8612}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("ESR_STORE", str(tmp_path))
    made = Store()
    made.put("detectors", [detector(1, "50% of a_b & c|d, and more than forty characters of it"), detector(0, "about castles")])
    return made


def test_rows_are_in_the_order_of_the_set_and_say_the_same_in_every_form(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detectors", "tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| 70 | about castles | 12.3 | 86.1 % | 0.5 | 2.5 % |"
    assert lines[3].startswith(r"| 71 | 50% of a_b & c\|d, and more than forty ch... |")
    assert main(["detectors", "tiny", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["latent"] for row in rows] == ["70", "71"]
    assert rows[1]["label"] == "50% of a_b & c|d, and more than forty characters of it"
    assert float(rows[0]["mismatched_active"]) == 0.8612
    assert main(["detectors", "tiny", "--format", "latex"]) == 0
    text = capsys.readouterr().out
    assert r"71 & 50\% of a\_b \& c\textbar{}d, and more than forty ch... & 12.3 & 86.1 \% & 0.5 & 2.5 \% \\" in text


def test_one_set_is_named_where_there_are_several(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.put("detectors", [detector(0, "other", "bb22")])
    assert main(["detectors", "tiny"]) == 2
    assert "name one with --set" in capsys.readouterr().err
    assert main(["detectors", "tiny", "--set", "bb"]) == 0
    assert "other" in capsys.readouterr().out
    assert main(["detectors", "8b"]) == 2
    assert "`python -m flows exp03 8b` finds them" in capsys.readouterr().err
    assert main(["detectors", "tiny", "--set", "bb", "--format", "xlsx"]) == 2


def test_areas_stand_beside_what_a_set_was_chosen_by(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    areas = {"auc": 0.834, "auc_held_out": 0.712, "auc_low": 0.55, "auc_high": 0.83}
    store.put("detectors", [detector(0, "about castles") | areas, detector(1, "more") | {"auc": 0.8, "auc_held_out": 0.6}])
    assert main(["detectors", "tiny"]) == 0
    head, _, first, second = capsys.readouterr().out.splitlines()
    assert head.endswith("| matched active | AUC | AUC held out |")
    assert first == "| 70 | about castles | 12.3 | 86.1 % | 0.5 | 2.5 % | 0.83 | 0.71 [0.55, 0.83] |", "the row with areas stands"
    assert second.endswith("| 0.80 | 0.60 |")
    assert main(["detectors", "tiny", "--format", "csv"]) == 0
    row = next(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {name: float(row[name]) for name in areas} == areas
    assert main(["detectors", "tiny", "--format", "latex"]) == 0
    text = capsys.readouterr().out
    assert r"\begin{tabular}{rlrrrrrr}" in text
    assert r"2.5 \% & 0.83 & 0.71 [0.55, 0.83] \\" in text
    found = [{**row, "matched_pairs": 80, "mismatched_pairs": 800} for row in detector_table.rows(store, "tiny")]
    assert "held out: on the other, 0.66 on the mean" in detectors.caption(found)
    own = {number.place[-2:]: number for number in detectors.numbers(found, ("exp03", "tiny"))}
    assert (own["70", "auc"].value, own["70", "auc"].low, own["70", "auc"].why) == (0.834, None, detectors.CHOSEN)
    held = own["70", "auc_held_out"]
    assert (held.value, held.low, held.high, held.n) == (0.712, 0.55, 0.83, 40)
    assert own["71", "auc_held_out"].why == "fewer than ten questions were held out"
