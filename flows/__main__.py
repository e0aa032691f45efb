"""`python -m flows exp01 tiny`: an experiment in the foreground, with a plan before, progress meanwhile and a table after.

`python -m flows exp01,exp08 tiny` runs several with one engine.

Needs no Prefect server: unless PREFECT_API_URL names one, the run brings its own for as long as it lasts, on a database in the
store, so its history is there for the next `prefect server start`. This module alone may print.
"""

import argparse
import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

STOPPED = 130
FAILED = 2
PATIENCE = 5.0
"""Seconds that a run gets to stop in good order. After that it ends as if killed, which loses no more than the batches at work."""
SHOW_CURSOR = b"\x1b[?25h"


@dataclass
class CtrlC:
    """The first asks the run at work to stop, the second ends the process; so does the first where there is none, or it takes too long."""

    line: str
    asked: bool = False
    progress: "Progress | None" = None
    """Of the run at work."""

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        if self.asked:
            self.leave("stopped at once")
        if self.progress is None:
            self.leave("stopped")
        self.asked = True
        threading.Thread(target=self.lose_patience, daemon=True).start()
        say("stopping; what has finished is kept; Ctrl-C again to stop at once")
        threading.Thread(target=let_go, args=(self.progress,), daemon=True).start()

    @contextmanager
    def at_work(self, progress: "Progress") -> Iterator[None]:
        self.progress = progress
        try:
            yield
        finally:
            self.progress = None

    def lose_patience(self) -> None:
        time.sleep(PATIENCE)
        self.leave("stopped")

    def leave(self, said: str) -> NoReturn:
        if os.isatty(1):
            os.write(1, SHOW_CURSOR)
        say(f"\n{said}; what was computed is kept, go on with: {self.line}")
        end_at_once(STOPPED)


def end_at_once(code: int) -> NoReturn:
    """With the engines that are being opened: their processes watch this one only once they have loaded."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


def say(text: str) -> None:
    """To a terminal whose lock some thread may hold for good."""
    os.write(2, f"{text}\n".encode())


if __name__ == "__main__":  # what is imported next takes seconds on a busy machine
    signal.signal(signal.SIGINT, CtrlC(" ".join(["python -m flows", *sys.argv[1:]])))

from rich.console import Console  # noqa: E402  # after Ctrl-C is heard

from esr.engine.share import POOL, VARIABLE, workers  # noqa: E402  # as above
from esr.errors import EsrError, ParamsError, one_of  # noqa: E402  # as above
from esr.params import load  # noqa: E402  # as above
from esr.params.places import experiments  # noqa: E402  # as above

if TYPE_CHECKING:
    from esr.study.progress import Progress

out = Console(highlight=False, markup=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def main(argv: list[str] | None = None) -> int:
    words = argparse.ArgumentParser(prog="python -m flows", description=__doc__.split("\n")[0] if __doc__ else "")
    words.add_argument("experiment", help=f"{', '.join(experiments())}; several with commas between")
    words.add_argument("model", help="a name under models: in params.yaml, such as tiny")
    words.add_argument("--scale", default="full", help="full, or smoke for small counts (default: full)")
    words.add_argument(
        "--workers", type=int, metavar="N", help="processes with an engine each, one a GPU or a share of the cores (default: one)"
    )
    words.add_argument(
        "--pool", metavar="NAME", help="a work pool whose workers these are, on whatever machines (default: processes of this one)"
    )
    words.add_argument("--judge", help="a name under judges: in params.yaml (default: the model's own)")
    asked = words.parse_args(argv)
    line = " ".join(["python -m flows", *(argv if argv is not None else sys.argv[1:])])
    if asked.workers is not None:
        os.environ[VARIABLE] = str(asked.workers)
    if asked.pool is not None:
        os.environ[POOL] = asked.pool
    pressed = CtrlC(line)
    before = signal.signal(signal.SIGINT, pressed)
    try:
        workers()
        for name in known(asked.experiment.split(",")):
            carry_out(name, asked.model, asked.scale, asked.judge, pressed)
        return 0
    except BaseException as error:
        return end(error, line, pressed.asked)
    finally:
        signal.signal(signal.SIGINT, before)


def known(names: list[str]) -> list[str]:
    for name in names:
        if name not in experiments():
            raise ParamsError(one_of("experiment", name, list(experiments()), "flows/"))
    return names


def carry_out(experiment: str, model: str, scale: str, judge: str | None, pressed: CtrlC) -> None:
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # the table says it; the run's log has the rest
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # in the engine's processes
    warnings.simplefilter("ignore")  # of libraries about libraries; nothing that a person at a run could do
    params = load(model, scale)  # what is not in params.yaml is said before all that a run rests on is loaded
    params.judge(judge or params.model(model).judge)
    from esr.experiment import module
    from esr.study import older
    from flows import foreground, stages
    from flows.server_guard import guard
    from tasks.run import Run

    run = Run.of(experiment, model, scale, judge)
    with suppress(EsrError):  # whatever it is, the check below says it
        for sentence in older.told(run.study):
            out.print(sentence)
    already = stages.there(run)
    out.print(foreground.plan(run, already))
    run.check()
    foreground.reach_server()
    guard()
    ready = foreground.own_server()
    flow = getattr(module(experiment), experiment)
    foreground.head_start(run, already)
    ready()
    with pressed.at_work(run.progress), foreground.progress(run.progress, out), foreground.history(run), run.handed_over():
        flow(model, scale=scale, judge=judge)
    foreground.close(run, out)


def let_go(progress: "Progress") -> None:
    """No further batch is begun, and of those at work only what has finished is waited for."""
    from esr.engine.open import halt_engines

    progress.stop()
    halt_engines()


def end(error: BaseException, line: str, asked: bool) -> int:
    """One sentence for what a user can meet; a traceback only for what cannot happen."""
    causes = chain(error)
    if asked:
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
    if code == STOPPED:
        end_at_once(code)  # an engine that is being opened would be waited for
    sys.exit(code)
