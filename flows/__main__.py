"""`python -m flows exp01 tiny`: an experiment in the foreground, with a plan before, progress meanwhile and a table after.

`python -m flows exp01,exp08 tiny` runs several with one engine.

Needs no Prefect server: unless PREFECT_API_URL names one, the run brings its own for as long as it lasts, on a database in the
store, so its history is there for the next `prefect server start`. This module alone may print.
"""

import argparse
import errno
import os
import signal
import sys
import warnings
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console

from esr.errors import EsrError, ParamsError, one_of
from esr.params.places import experiments

if TYPE_CHECKING:
    from esr.study.progress import Progress

STOPPED = 130
FAILED = 2

out = Console(highlight=False, markup=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def main(argv: list[str] | None = None) -> int:
    words = argparse.ArgumentParser(prog="python -m flows", description=__doc__.split("\n")[0] if __doc__ else "")
    words.add_argument("experiment", help=f"{', '.join(experiments())}; several with commas between")
    words.add_argument("model", help="a name under models: in params.yaml, such as tiny")
    words.add_argument("--scale", default="full", help="full, or smoke for small counts (default: full)")
    words.add_argument("--judge", help="a name under judges: in params.yaml (default: the model's own)")
    asked = words.parse_args(argv)
    line = " ".join(["python -m flows", *(argv if argv is not None else sys.argv[1:])])
    try:
        for name in known(asked.experiment.split(",")):
            carry_out(name, asked.model, asked.scale, asked.judge)
        return 0
    except BaseException as error:
        return end(error, line)


def known(names: list[str]) -> list[str]:
    for name in names:
        if name not in experiments():
            raise ParamsError(one_of("experiment", name, list(experiments()), "flows/"))
    return names


def carry_out(experiment: str, model: str, scale: str, judge: str | None) -> None:
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # the table says it; the run's log has the rest
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    warnings.simplefilter("ignore")  # of libraries about libraries; nothing that a person at a run could do
    from esr.experiment import module
    from esr.study.workload import there
    from flows import foreground
    from flows.leash import leash
    from tasks.run import Run

    run = Run.of(experiment, model, scale, judge)
    already = there(run.study, run.experiment, run.judge)
    out.print(foreground.plan(run, already))
    run.check()
    foreground.reach_server()
    stop_on_ctrl_c(run.progress)
    with leash():
        ready = foreground.own_server()
        flow = getattr(module(experiment), experiment)
        foreground.head_start(run, already)
        ready()
        with foreground.progress(run.progress, out), foreground.history(run), run.handed_over():
            flow(model, scale=scale, judge=judge)
    foreground.close(run, out)


def stop_on_ctrl_c(progress: "Progress") -> None:
    """The first Ctrl-C lets the batches at work end; the second ends the process."""

    def ask(_signal: int, _frame: FrameType | None) -> None:
        if progress.stopped:
            err.print("stopped at once; the batches at work are lost, all others are kept")
            os._exit(STOPPED)
        progress.stop()
        err.print("stopping after the batches at work; Ctrl-C again to stop at once")

    signal.signal(signal.SIGINT, ask)


def end(error: BaseException, line: str) -> int:
    """One sentence for what a user can meet; a traceback only for what cannot happen."""
    from esr.study.progress import Stopped

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
