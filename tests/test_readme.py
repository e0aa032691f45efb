"""What README.md promises a reader who types it in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flow_runs import place

from esr.params import HOME
from esr.store import Store

pytestmark = pytest.mark.slow


def test_the_study_in_a_notebook_runs_as_a_script_and_without_prefect(tmp_path: Path) -> None:
    where = place(tmp_path / "p")
    page = (HOME / "README.md").read_text().split("In a notebook, without Prefect:")[1]
    script = tmp_path / "study.py"
    script.write_text(page.split("```python\n")[1].split("```")[0] + "\nimport sys\nassert 'prefect' not in sys.modules\n")
    env = {**os.environ, **where.env, "PYTHONPATH": str(HOME)}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = Store(where.store).sql("select arm, n_planned, n_graded, n_missing from summary where experiment = 'mine' order by arm")
    steered, told = rows.to_pylist()
    assert (steered["arm"], told["arm"]) == ("steered", "told")
    assert steered["n_graded"] == told["n_graded"] > 0
    assert steered["n_graded"] % 4 == 0
    assert steered["n_missing"] == told["n_missing"] == 0
    assert all(f"{one['arm']}" in done.stdout and f"{one['n_graded']}" in done.stdout for one in (steered, told))
    pairs = Store(where.store).sql(
        "select count(*) as n from outcomes a join outcomes b using (experiment, model, scale, judge, latent, question, seed) "
        "where a.arm = 'steered' and b.arm = 'told'"
    )
    assert pairs["n"].to_pylist() == [steered["n_graded"]]


def test_the_table_holds_the_recorded_numbers_and_nothing_else() -> None:
    sys.path.insert(0, str(HOME / "scripts"))
    import headline

    assert (HOME / "README.md").read_text() == headline.page(), "python scripts/headline.py writes it again"
