"""`make test` on several processes: the tests of a file meet in one of them, where they share an engine or a server; files share nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import tasks
from esr.params import HOME


def test_a_files_tests_run_in_one_process(tmp_path: Path) -> None:
    (line,) = re.findall(r"-m pytest -n \$\(SIDE\) (.*)", (HOME / "Makefile").read_text())
    for name in "ab":
        (tmp_path / f"test_{name}.py").write_text(
            "import os, pathlib, pytest\n"
            "@pytest.mark.parametrize('n', range(6))\n"
            "def test_it(n):\n"
            f"    with pathlib.Path('{name}').open('a') as file: file.write(f'{{os.getpid()}}\\n')\n"
        )
    words = [sys.executable, "-m", "pytest", "-n", "2", *line.split(), "-c", "/dev/null", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    seen = [(tmp_path / name).read_text().split() for name in "ab"]
    assert [len(pids) for pids in seen] == [6, 6]
    assert [len(set(pids)) for pids in seen] == [1, 1]


def test_what_is_imported_as_tests_are_collected_leaves_nothing_to_their_processes() -> None:
    assert tasks.environment.HEARTBEAT
    assert not {"PREFECT_HOME", "PREFECT_RESULTS_LOCAL_STORAGE_PATH", "ESR_STORE"} & set(os.environ)
