"""What a person at a terminal sees of a run: the plan before, progress meanwhile, the table after."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from uuid import UUID

from rich.console import Console
from rich.live import Live
from rich.table import Table

from esr.errors import EsrError
from esr.show import closing_table
from esr.study.progress import Progress, Stage
from esr.study.study import backend
from esr.study.workload import There, workload
from tasks.run import Run

PAUSE = 0.25


class ServerError(EsrError, ConnectionError):
    """The Prefect server that was named is not there."""


WIDE = 150
"""Columns that the closing table takes on one line an arm."""
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
    stored = f"{there.replies:,} replies and {there.grades:,} grades of {there.trials:,} planned trials are there and are not computed again"
    return (
        f"{run.title}{', engine vllm' if backend() == 'vllm' else ''}\n"
        f"plan: at most {' + '.join(parts)} = {asked.replies:,} replies; {asked.judge_calls:,} judge calls; "
        f"{asked.tokens / 1e6:.3g} M tokens\n"
        f"store {run.study.store.root}: {stored if there.trials else 'nothing of it is there yet'}"
    )


def head_start(run: Run, there: There) -> None:
    """The engine opens while the run's own server starts, where replies are certain to be missing."""
    if there.replies < max(there.trials, 1):
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
    done = threading.Event()
    how = _live if console.is_terminal else _lines
    thread = threading.Thread(target=how, args=(shown, console, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(5)


def _live(shown: Progress, console: Console, done: threading.Event) -> None:
    with Live(_table(shown), console=console, refresh_per_second=4, transient=False) as live:
        while not done.wait(PAUSE):
            live.update(_table(shown))
        live.update(_table(shown))


def _lines(shown: Progress, console: Console, done: threading.Event) -> None:
    said = ""
    while not done.wait(LINES_EVERY):
        text = " · ".join(" ".join(_row(stage)) for stage in shown.stages() if stage.done < stage.total or not stage.total)
        if text and text != said:
            console.print(text)
            said = text


def _table(shown: Progress) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("stage", "done", "rate", "remaining", "missing", "cost"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in shown.stages():
        table.add_row(*_row(stage))
    return table


def _row(stage: Stage) -> list[str]:
    left = stage.remaining
    return [
        stage.name,
        f"{stage.done:,}/{stage.total:,}" if stage.total else f"{stage.done:,}",
        f"{stage.rate:.1f}/s" if stage.done > stage.stored else "stored" if stage.stored else "",
        f"{left // 60:.0f}:{left % 60:02.0f}" if left else "",
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
    found = closing_table.lines(run.study.store, run.params, run.experiment, run.selection)
    table = Table(title=run.title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    narrow = console.is_terminal and console.width < WIDE
    for name in closing_table.HEADER:
        table.add_column(name, justify="left" if name == "arm" else "right", no_wrap=not narrow)
    for line in found:
        table.add_row(*(cell.replace(" [", "\n[") if narrow else cell for cell in line.cells()))
    shown = Console(width=console.width if narrow else max(console.width, WIDE), highlight=False, soft_wrap=True)
    shown.print(table)
    console.print(closing_table.NOTE)
    for picture in run.pictures:
        console.print(f"figure: {picture}")
