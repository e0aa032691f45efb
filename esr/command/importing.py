"""python -m esr import-reference: the authors' result files into the store."""

import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esr.reference import File, Names
    from esr.store import Store


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="the folder that holds the result files, at any depth; or one file"
    )
    parser.add_argument(
        "--scale",
        default="full",
        help="scale that the trials are recorded under (full); another name keeps them beside your own runs",
    )
    parser.add_argument("--all", action="store_true", help="name every file that was passed over, not the first few of each reason")


@dataclass
class Report:
    """What was read, and what could not be used and why."""

    files: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    again: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)
    arms: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    ablated: dict[tuple[str, str, str], set[int]] = field(default_factory=dict)


def run(args: Namespace) -> int:
    from esr import params
    from esr.errors import DataError
    from esr.reference import Names, found
    from esr.store import Store

    paths = found(args.folder)
    store, names, report = Store(), Names(params.load()), Report()
    for path in _progress(paths):
        enter(store, args.folder, path, names, args.scale, report)
    put_arms(store)
    store.ingest()
    _tell(report, everything=args.all)
    if not report.files and not report.again:
        raise DataError(
            f"asked to import {str(args.folder)!r} and none of its {len(paths)} files is one of the authors'; nothing was stored"
        )
    return 0


def enter(store: "Store", folder: Path, path: Path, names: "Names", scale: str, report: Report) -> None:
    """One file: all its rows become durable, and last the row that says so; after a crash the rest follows."""
    from esr.errors import DataError
    from esr.reference import File
    from esr.reference.scores import words

    name = words(str(path.relative_to(folder)) if path != folder else path.name)
    try:
        file = File(folder, path, names, scale)
        if store.known("imports", [file.sha256]):
            report.again += 1
            return
        rows = _put(store, file, report)
    except DataError as error:
        report.skipped.setdefault(str(error), []).append(name)
        return
    report.files[file.kind] += 1
    if file.problems:
        report.problems[name] = file.problems
    about = {"file": name, "sha256": file.sha256, "kind": file.kind, "rows": rows, "problems": file.problems}
    store.put("imports", [about], key=file.sha256)


def put_arms(store: "Store") -> None:
    """What sort of condition each imported arm is; the same arms again are a no-op."""
    from esr.reference import arms

    store.put_arms(arms.rows(store.sql(arms.IMPORTED).to_pylist(), store.sql(arms.FILES).to_pylist()))


def _put(store: "Store", file: "File", report: Report) -> int:
    total = 0
    for i, batch in enumerate(file.batches()):
        for table, rows in batch.items():
            store.put(table, rows, key=f"{file.sha256[:32]}-{i:05d}")
            report.rows[table] += len(rows)
            total += len(rows)
        _arms(batch, file, report)
    return total


def _arms(batch: dict[str, list[dict[str, Any]]], file: "File", report: Report) -> None:
    for row in batch.get("members", []):
        arm = (row["experiment"], row["model"], row["arm"])
        report.arms[arm] += 1
        if file.about.ablated:
            report.ablated.setdefault(arm, set()).add(len(file.about.ablated))
    model = file.about.place.model
    if batch.get("members") and file.kind == "results" and not model.known:
        file.about.problems[f"no model of params.yaml is called {model.reference!r}; its trials are kept under that name"] = 1


def _progress(paths: list[Path]) -> Iterator[Path]:
    """The files one by one, with a bar on standard error measured in bytes; where nobody looks, a line now and then."""
    from time import monotonic

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from esr.reference.scores import words

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    sizes = [path.stat().st_size for path in paths]
    said = monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=sum(sizes))
        for i, (path, size) in enumerate(zip(paths, sizes, strict=True)):
            bar.update(task, description=words(path.name)[:60])
            if not console.is_terminal and monotonic() - said > SAY_EVERY:
                said = monotonic()
                sys.stderr.write(f"file {i + 1} of {len(paths)}, {sum(sizes[:i]) >> 20} of {sum(sizes) >> 20} MiB: {path.name}\n")
            yield path
            bar.advance(task, size)


SAY_EVERY = 5.0
"""Seconds between lines of progress when standard error is no terminal."""


def _tell(report: Report, *, everything: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if report.arms:
        table = Table("experiment", "model", "arm", header_style="bold")
        table.add_column("trials", justify="right")
        for (experiment, model, name), n in sorted(report.arms.items()):
            table.add_row(escape(experiment), escape(model), escape(name), str(n))
        Console(width=None if sys.stdout.isatty() else 120).print(table)
    write = sys.stdout.write
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(report.files.items())) or "no new"
    write(f"read {kinds} files: " + (", ".join(f"{n} {table}" for table, n in sorted(report.rows.items())) or "no rows") + "\n")
    if report.again:
        write(f"{report.again} files were in the store already, or have the same bytes as another; each counts once\n")
    for arm, sizes in sorted(report.ablated.items()):
        if len(sizes) > 1:
            write(f"{'/'.join(arm)} pools sets of different sizes: {', '.join(map(str, sorted(sizes)))} ablated latents\n")
    for name, problems in report.problems.items():
        for problem in problems:
            write(f"{name}: {problem}\n")
    for why, files in report.skipped.items():
        shown = files if everything else files[:5]
        more = f" and {len(files) - len(shown)} more (--all names them)" if len(files) > len(shown) else ""
        write(f"not used: {', '.join(shown)}{more}: {why}\n")
