"""What `python -m deployments` does before there is anything to deploy to."""

import os
import subprocess
import sys
from pathlib import Path

from esr.params import HOME


def run(code: str, store: Path) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: importing the module settles where Prefect writes."""
    env = {**os.environ, "ESR_STORE": str(store), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    line = [sys.executable, "-c", f"import sys, deployments.__main__ as d\n{code}"]
    return subprocess.run(line, env=env, cwd=HOME, capture_output=True, text=True, timeout=120)


def test_a_server_that_is_still_starting_is_waited_for(tmp_path: Path) -> None:
    done = run("said = [OSError(), OSError(), None]; sys.exit(not d.answers(lambda: said.pop(0)) or len(said))", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "waiting up to 60 s for the Prefect server at http://127.0.0.1:9/api" in done.stderr


def test_where_no_server_is_the_wait_ends_with_what_to_do(tmp_path: Path) -> None:
    done = run("d.PATIENCE = 0.0; sys.exit(d.main(['init']))", tmp_path)
    assert done.returncode == 2
    assert "no Prefect server answers at http://127.0.0.1:9/api; start one with `prefect server start`" in done.stderr
