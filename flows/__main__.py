"""`python -m flows exp01 tiny`: an experiment in the foreground, with a plan before, progress meanwhile and a table after.

`python -m flows exp01,exp08 tiny` runs several with one engine.

Needs no Prefect server: unless PREFECT_API_URL names one, the run brings its own for as long as it lasts, on a database in the
store, so its history is there for the next `prefect server start`. This module alone may print.
"""

import argparse
import errno
import importlib
import os
import signal
import sys
import warnings
from types import FrameType

from rich.console import Console

from esr.errors import EsrError, ParamsError, one_of

EXPERIMENTS = ("exp01", "exp02", "exp03", "exp05", "exp08", "exp10")
STOPPED = 130
FAILED = 2

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def main(argv: list[str] | None = None) -> int:
    words = argparse.ArgumentParser(prog="python -m flows", description=__doc__.split("\n")[0] if __doc__ else "")
    words.add_argument("experiment", help=f"{', '.join(EXPERIMENTS)}; several with commas between")
    words.add_argument("model", help="a name under models: in params.yaml, such as tiny")
    words.add_argument("--scale", default="full", help="full, or smoke for small counts (default: full)")
    words.add_argument("--judge", help="a name under judges: in params.yaml (default: the model's own)")
    asked = words.parse_args(argv)
    line = " ".join(["python -m flows", *(argv if argv is not None else sys.argv[1:])])
    try:
        for name in known(asked.experiment.split(",")):
            run(name, asked.model, asked.scale, asked.judge)
        return 0
    except BaseException as error:
        return end(error, line)


def known(names: list[str]) -> list[str]:
    for name in names:
        if name not in EXPERIMENTS:
            raise ParamsError(one_of("experiment", name, list(EXPERIMENTS), "flows/"))
    return names


def run(experiment: str, model: str, scale: str, judge: str | None) -> None:
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # the table says it; the run's log has the rest
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    warnings.simplefilter("ignore")  # of libraries about libraries; nothing that a person at a run could do
    from flows import foreground
    from flows.leash import leash
    from tasks.study import Study

    study = Study.of(experiment, model, scale, judge)
    there = study.bench.progress(study.experiment, study.judge)
    out.print(foreground.plan(study, there))
    study.check()
    foreground.reach_server()
    stop_on_ctrl_c()
    with leash():
        ready = foreground.own_server()
        flow = getattr(importlib.import_module(f"flows.{experiment}"), experiment)
        foreground.head_start(study, there)
        ready()
        with foreground.progress(out), foreground.history():
            flow(model, scale=scale, judge=judge)
    foreground.close(study, out)


def stop_on_ctrl_c() -> None:
    """The first Ctrl-C lets the batches at work end; the second ends the process."""
    from tasks import board

    def ask(_signal: int, _frame: FrameType | None) -> None:
        if board.stopped():
            err.print("stopped at once; the batches at work are lost, all others are kept")
            os._exit(STOPPED)
        board.stop()
        err.print("stopping after the batches at work; Ctrl-C again to stop at once")

    signal.signal(signal.SIGINT, ask)


def end(error: BaseException, line: str) -> int:
    """One sentence for what a user can meet; a traceback only for what cannot happen."""
    from tasks.board import Stopped

    causes = chain(error)
    if any(isinstance(cause, (Stopped, KeyboardInterrupt)) for cause in causes):
        err.print(f"stopped; what was computed is kept, go on with: {line}")
        return STOPPED
    for cause in causes:
        if said := sentence(cause):
            err.print(f"error: {said}")
            return FAILED
    if isinstance(error, SystemExit):
        raise error
    err.print_exception(max_frames=20)
    err.print(f"this is a fault of the program; what was computed is kept, the same line goes on from here: {line}")
    return 1


def chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def sentence(error: BaseException) -> str | None:
    if isinstance(error, EsrError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left for {error.filename or 'the store'}; free some and run the same line again, nothing is lost"
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{error.filename or 'the store'} cannot be written; make it writable or set ESR_STORE to a folder that is"
    return None


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
