"""A worker of a pool as one engine of a run elsewhere: what `--pool` calls, and nothing to start by hand."""

import os
import subprocess
import sys

from prefect import flow

from esr.engine.share import POOL, VARIABLE
from esr.engine.worker import KEY
from esr.errors import EngineError
from esr.parent import end_with_parent


@flow(name="engine", flow_run_name="engine of {run}")
def engine(address: str, key: str, run: str) -> None:
    """Joins the run that called it, opens the engine that it is told to, and serves until that run has ended."""
    env = {name: value for name, value in os.environ.items() if name not in (VARIABLE, POOL)} | {KEY: key}
    line = [sys.executable, "-m", "esr.engine.worker", "join", address]
    # a flow run that is cancelled or killed takes its worker along
    process = subprocess.Popen(line, env=env, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=end_with_parent)
    if process.wait():
        raise EngineError(f"{run} has ended before its engine was let go, or its engine could not be opened; the log has the rest")
