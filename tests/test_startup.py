"""What the tests' processes import of others is not traced, and what is measured is."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import STARTUP

from esr.params import HOME

FILES = {
    "outer.py": "import subprocess, sys\nsubprocess.run([sys.executable, 'inner.py'], check=True)\n",
    "inner.py": "import sys\nimport other\nprint(other.BEFORE, other.inside(), other.AFTER, sys.gettrace() is not None)\n",
    "other.py": "import sys\nBEFORE = sys.gettrace() is not None\nfrom deployments import inside\nAFTER = sys.gettrace() is not None\n",
    "deployments/__init__.py": "import sys\nHERE = sys.gettrace() is not None\n\n\ndef inside():\n    return HERE\n",
}


def test_what_is_measured_is_traced_and_what_others_import_is_not(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    env["PYTHONPATH"] = os.pathsep.join(map(str, (STARTUP, tmp_path)))
    settings = [f"--rcfile={HOME / 'pyproject.toml'}", f"--data-file={tmp_path / 'measured'}"]
    words = [sys.executable, "-m", "coverage", "run", *settings, "outer.py"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False", "True"], done.stderr
    words = [sys.executable, "-m", "coverage", "combine", "-q", *settings]
    subprocess.run(words, cwd=tmp_path, env=env, check=True)
    words = [sys.executable, "-m", "coverage", "report", *settings, "--include=*/deployments/*"]
    told = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "1 file skipped due to complete coverage.", told
