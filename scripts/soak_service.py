"""Does what `python -m deployments up` starts stay up? A fresh copy of the tree, a run, minutes of polling, another run.

    python scripts/soak_service.py --minutes 10 --out docs/benchmarks/service.json

Written down: seconds that `up`, the runs and `down` took, whether both runs completed, whether the server is the same process and answers
after so many minutes, lines in its log and how many say that the database is locked, and the processes that `down` left.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from test_deployments import BIN, Copy, copy  # noqa: E402  # the tests' folder is not a package

from deployments import processes  # noqa: E402  # as above


def timed(found: dict[str, Any], name: str, here: Copy, *words: str | Path) -> None:
    began = time.monotonic()
    done = here.run(*words)
    found[name] = {"seconds": round(time.monotonic() - began, 1), "exit": done.returncode, "lines": len(done.stdout.splitlines())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    run = [BIN / "prefect", "deployment", "run", "exp05/tiny", "--param", "scale=smoke", "--watch"]
    service = [sys.executable, "-m", "deployments"]
    found: dict[str, Any] = {"minutes": asked.minutes, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        here = copy(Path(folder))
        try:
            timed(found, "up", here, *service, "up")
            before = here.pids()
            timed(found, "first run", here, *run)
            time.sleep(60 * asked.minutes)
            timed(found, "second run", here, *run)
            timed(found, "status", here, *service, "status")
            found["same processes"] = here.pids() == before
            log = processes.log(here.prefect, "server").read_text()
            found["server log"] = {"lines": len(log.splitlines()), "locked": log.count("database is locked")}
        finally:
            timed(found, "down", here, *service, "down")
        found["left"] = here.left()
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    if asked.out:
        asked.out.write_text(text)


if __name__ == "__main__":
    main()
