"""docs/first_study.ipynb, executed from nothing on the real engine.

It is kept without outputs: what comes out is this machine's, since another processor may draw other tokens, and results have one home in
git, the recorded exports. So a reader sees how a study is made, and CI that it comes out.
"""

import base64
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from esr.params import HOME
from esr.store import Store

NOTEBOOK = HOME / "docs" / "first_study.ipynb"
ARMS = ["baseline", "told", "reply only", "not steered"]


def kept() -> NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook: NotebookNode, kind: str) -> list[str]:
    """Whatever its cells show of this kind."""
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    return [data[kind] for data in shown if kind in data]


def test_it_is_kept_without_outputs() -> None:
    nbformat.validate(kept())
    assert not [cell for cell in kept().cells if cell.get("outputs") or cell.get("execution_count")]


def test_a_whole_study_is_some_fifteen_lines() -> None:
    code = "\n".join(cell.source for cell in kept().cells if cell.cell_type == "code")
    assert len(code.splitlines()) <= 20
    assert kept().cells[0].cell_type == "markdown"
    assert "What it needs" in kept().cells[0].source


@pytest.mark.slow
def test_from_nothing_to_a_table_and_a_figure(tmp_path: Path) -> None:
    made = kept()
    folder = {"metadata": {"path": str(NOTEBOOK.parent)}}
    client = NotebookClient(made, timeout=700, startup_timeout=300, kernel_name="python3", resources=folder)
    client.execute(env={**os.environ, "PYTHONPATH": str(HOME), "ESR_STORE": str(tmp_path)})

    table = outputs(made, "text/html")[0]
    assert re.findall(r"<th>([^<]+)</th>", table.split("<tbody>")[1]) == ARMS
    picture = base64.b64decode(outputs(made, "image/png")[0])
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    rows = Store(tmp_path).sql("select arm, n_graded, n_missing from summary where experiment = 'first'").to_pylist()
    assert {row["arm"] for row in rows} == set(ARMS)
    assert len({row["n_graded"] for row in rows}) == 1
    assert rows[0]["n_graded"] > 0
    pairs = Store(tmp_path).sql("select distinct arm from pairs where experiment = 'first'")["arm"].to_pylist()
    assert set(pairs) == set(ARMS) - {"baseline"}
    said = "".join(output.text for cell in made.cells for output in cell.get("outputs", []) if output.get("name") == "stdout")
    assert "latent_label: " in said
