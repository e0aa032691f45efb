"""A full run leaves its key nowhere: not in its output, its store, its cache, nor in Prefect's records."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from judge_server import Provider
from judge_setup import KEY

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_a_full_run_leaves_its_key_nowhere(tmp_path: Path) -> None:
    provider = Provider().start()
    provider.schedule.faults = 0.1
    home = tmp_path / "home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "ESR_"))}
    environment |= {
        "ESR_ENGINE": "fake", "ESR_STORE": str(tmp_path / "store"), "ESR_LIMITS": str(tmp_path / "limits"), "PREFECT_HOME": str(home),
        "ANTHROPIC_BASE_URL": provider.url, "ANTHROPIC_API_KEY": KEY, "PREFECT_LOGGING_LEVEL": "DEBUG", "HOME": str(home),
    }  # fmt: skip
    home.mkdir()
    ran = subprocess.run(
        [sys.executable, "-m", "flows", "exp08", "tiny", "--scale", "smoke", "--judge", "haiku-4.5"],
        cwd=ROOT, env=environment, capture_output=True, timeout=400, check=False,
    )  # fmt: skip
    provider.stop()
    assert ran.returncode == 0, ran.stderr.decode()[-2000:]
    assert provider.answered().total() > 30
    kept = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert any(b"<reply>" in body for body in kept.values()), "the judge's answers are among the files looked through"
    assert any(file.is_relative_to(home) and file.suffix == ".db" for file in kept), "and so are Prefect's records"
    for name, body in [*kept.items(), ("output", ran.stdout + ran.stderr)]:
        assert KEY.encode() not in body, name
