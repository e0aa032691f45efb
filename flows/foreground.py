"""What a person at a terminal sees of a run: the plan before, progress meanwhile, the table after."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from uuid import UUID

from rich.console import Console
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table

from esr.engine.fleet import Seen
from esr.engine.open import seen
from esr.engine.share import POOL
from esr.errors import EsrError
from esr.show import closing_table
from esr.show.moment import moment
from esr.study.progress import Progress, Stage
from esr.study.study import backend
from esr.study.workload import There, workload
from tasks.run import Run

PAUSE = 0.25


class ServerError(EsrError, ConnectionError):
    """The Prefect server that was named is not there."""


WIDE = 150
"""Columns that lines are laid out for where nothing says how many there are."""
LINES_EVERY = 15.0
"""Seconds between two lines of progress where there is no terminal."""


def plan(run: Run, there: There) -> str:
    """What is asked for and how much of it is in the store already."""
    asked = workload(run.params, run.experiment)
    parts = [f"{asked.search:,} replies to calibrate {asked.latents} latents"]
    if asked.discovery:
        parts.append(f"{asked.discovery:,} to find detectors")
    if asked.baseline:
        parts.append(f"{asked.baseline:,} of experiment 1")
    if asked.own:
        parts.append(f"{asked.own:,} in {asked.arms} arm{'s' if asked.arms > 1 else ''} of its own")
    labelled, unlabelled = len(run.study.labels), run.study.unlabelled
    few = f"; {asked.latents:,} latents are asked for and {labelled:,} have a label" if labelled < asked.latents else ""
    return (
        f"{run.title}{', engine vllm' if backend() == 'vllm' else ''}\n"
        f"plan: at most {' + '.join(parts)} = {asked.replies:,} replies; {asked.judge_calls:,} judge calls; "
        f"{asked.tokens / 1e6:.3g} M tokens{few}\n"
        + (f"{unlabelled}\n" if unlabelled else "")
        + f"store {run.study.store.place}: {said(there, asked.trials)}"
    )


def said(there: There, trials: int) -> str:
    """How much is there of the trials that this run will ask for; a stored trial that it will not ask for counts for nothing."""
    if not there.known:
        return "thresholds have not been searched with these settings, so which of its trials are there is not known yet"
    if not there.replies:
        return "nothing of it is there yet"
    return (
        f"{there.replies:,} replies and {there.grades:,} grades of at most {trials:,} trials are there and are not computed again"
    )


def head_start(run: Run, there: There) -> None:
    """The engine opens while the run's own server starts, where replies are certain to be missing and it is known what it serves; one of
    a pool's workers is called by the flow."""
    if os.environ.get(POOL) or run.experiment.siblings:
        return
    if not there.known or there.replies < max(there.trials, 1):
        _aside(lambda: run.study.engine)


def own_server() -> Callable[[], None]:
    """The run's own server starts while the rest is loaded; what comes back waits for it."""
    if os.environ.get("PREFECT_API_URL"):
        return lambda: None
    import prefect.server.api.server  # noqa: F401  # by one thread alone: its modules import each other in circles
    from prefect.client.orchestration import get_client

    return _aside(lambda: get_client(sync_client=True)).join


def _aside(work: Callable[[], object]) -> threading.Thread:
    """In a thread of its own. A failure is not said here: the run meets it again when it needs the same, and says it there."""

    def tried() -> None:
        signal.pthread_sigmask(
            signal.SIG_BLOCK, {signal.SIGINT}
        )  # as what is started here inherits: Ctrl-C is for this process alone
        with suppress(Exception):
            work()

    thread = threading.Thread(target=tried, daemon=True)
    thread.start()
    return thread


def reach_server() -> None:
    """The server that PREFECT_API_URL names answers; without that, the run brings its own."""
    from prefect.client.orchestration import get_client

    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return
    with get_client(sync_client=True) as client:
        if client.api_healthcheck() is not None:
            raise ServerError(
                f"no Prefect server answers at {url}; start one with `python -m deployments up`, or unset PREFECT_API_URL"
            )


@contextmanager
def progress(shown: Progress, console: Console) -> Iterator[None]:
    """Stage, done of total, rate, remaining, missing, cost: a live table on a terminal, now and then a line elsewhere."""
    done, told = threading.Event(), Warnings(console)
    logging.getLogger("esr").addHandler(told)
    how = _live if console.is_terminal else _lines
    thread = threading.Thread(target=how, args=(shown, console, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(5)
        logging.getLogger("esr").removeHandler(told)


class Warnings(logging.Handler):
    """What a person should know while a run goes on, each sentence once: a judge that does not answer, latents that are lacking."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self.console, self.heard = console, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.heard:
            self.heard.add(text)
            self.console.print(f"note: {text}")


def _live(shown: Progress, console: Console, done: threading.Event) -> None:
    with Live(_table(shown), console=console, refresh_per_second=4, transient=False) as live:
        while not done.wait(PAUSE):
            live.update(_table(shown))
        live.update(_table(shown))


def _lines(shown: Progress, console: Console, done: threading.Event) -> None:
    said = ""
    while not done.wait(LINES_EVERY):
        rows = [_row(stage) for stage in shown.stages() if stage.done < stage.total or not stage.total]
        text = " · ".join(" ".join(filter(None, row)) for row in [*rows, *map(_hand, seen() if rows else ())])
        if text and text != said:
            console.print(text)
            said = text


def _table(shown: Progress) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("stage", "done", "rate", "remaining", "missing", "cost"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in shown.stages():
        table.add_row(*_row(stage))
    for worker in seen():
        table.add_row(*_hand(worker))
    return table


def _hand(worker: Seen) -> list[str]:
    state = f"{worker.at_work:,} at work" if worker.state == "open" else worker.state
    rate = f"{worker.rate:.1f}/s" if worker.done else ""
    return [f"  worker {worker.number}", f"{worker.done:,}", rate, state, "", ""]


def _row(stage: Stage) -> list[str]:
    left = stage.remaining
    return [
        stage.name,
        f"{stage.done:,}/{stage.total:,}" if stage.total else f"{stage.done:,}",
        f"{stage.rate:.1f}/s" if stage.done > stage.stored else "stored" if stage.stored else "",
        f"{round(left) // 60}:{round(left) % 60:02}" if left else "",
        f"{stage.missing} missing" if stage.missing else "",
        "unknown cost" if stage.cost is None else f"${stage.cost:.2f}" if stage.cost else "",
    ]


@contextmanager
def history(run: Run, patience: float = 10.0) -> Iterator[None]:
    """A server of the run's own has written the whole run down before it goes: it takes events in after they are sent."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    yield
    if os.environ.get("PREFECT_API_URL") or run.flow_run is None:
        return
    end = monotonic() + patience
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run.flow_run)]))
    with get_client(sync_client=True) as client:
        while monotonic() < end:
            runs = client.read_task_runs(flow_run_filter=mine, limit=200)
            if all(task.state is not None and task.state.is_final() for task in runs):
                return
            sleep(0.2)


def close(run: Run, console: Console) -> None:
    """Arm, n, missing, first score, multi-attempt, ESR with intervals, paired difference; and where the figure is."""
    with moment(run.study.store) as store:
        found = closing_table.lines(store, run.params, run.experiment, run.selection)
        note = closing_table.note(store, run.selection, found)
    room = console.width if console.is_terminal else None
    if found:
        dose = closing_table.known(found)
        header = closing_table.header(run.experiment.shown, dose=dose)
        closing(run.title, [line.cells(dose=dose) for line in found], room, header)
        console.print(note)
    for picture in run.pictures:
        console.print(f"figure: {picture}")


def closing(title: str, rows: list[list[str]], room: int | None, header: tuple[str, ...] = closing_table.HEADER) -> None:
    """One line an arm in `room` columns; where that is too narrow intervals go under their numbers, and then each number has a line."""
    for stacked in (False, True):
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for name in header:
            table.add_column(name, justify="left" if name == "arm" else "right", no_wrap=True)
        for cells in rows:
            table.add_row(*(cell.replace(" [", "\n[") if stacked else cell for cell in cells))
        out = Console(width=WIDE, highlight=False, soft_wrap=True, markup=False)
        wide = Measurement.get(out, out.options.update(max_width=1000), table).maximum
        if room is None or wide <= room:
            Console(width=max(wide, len(title)), highlight=False, soft_wrap=True).print(table)
            return
    out.print(title)
    for arm, *cells in rows:
        out.print(arm)
        for name, cell in zip(header[1:], cells, strict=True):
            if cell:
                out.print(f"  {name:<18}{cell}")
