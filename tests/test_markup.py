"""Whatever a file or a column is called, it is printed and not taken for markup."""

import json
from argparse import Namespace
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from esr.command import importing, sql

NAMES = ["[/INST]", "[bold", "[/]", "[link=x]"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_looks_like_markup_is_printed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = importing.Report(arms=Counter({("exp01", name, "baseline"): 3}))
    importing._tell(report, everything=False)
    file = tmp_path / f"{name.replace('/', '_')}.json"
    file.write_text("{}")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    odd = SimpleNamespace(stat=file.stat, name=name)
    assert list(importing._progress([odd])) == [odd]  # type: ignore[list-item]  # a path as far as it is asked
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    assert sql.run(Namespace(query=f'select {json.dumps(name)[1:-1]!r} as "{name}"', limit=5, json=False, csv=False)) == 0
    assert name in capsys.readouterr().out
