"""python -m esr table: the closing table of an experiment again, with every interval and how it came about."""

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from esr.command.reading import existing

if TYPE_CHECKING:
    from esr.show.closing_table import Line


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("experiment", help="an experiment of flows/, such as exp01")
    parser.add_argument("model", help="a model of params.yaml, or the name under which results were imported")
    parser.add_argument("--scale", default="full", help="full or smoke (full)")
    parser.add_argument("--judge", help="whose grades; the model's own judge when left out")
    parser.add_argument("--json", action="store_true", help="every metric of every arm, with methods and effective n")


def run(args: Namespace) -> int:
    from esr import experiment as experiments
    from esr import params as parameters
    from esr.errors import DataError
    from esr.show import closing_table, dosed
    from esr.show.moment import moment
    from esr.study.study import backend

    store = existing()  # before the flows are read, which make a folder for Prefect in it
    experiment, params = experiments.find(args.experiment), parameters.load(scale=args.scale)
    known = args.model in params.models
    judge = args.judge or (params.model(args.model).judge if known else "")
    if not judge:
        there = store.sql("select distinct judge from outcomes where experiment = ? and model = ?", [experiment.name, args.model])
        judge = next(iter(sorted(there["judge"].to_pylist())), "")
    params = parameters.load(args.model, args.scale) if known else params
    chosen = experiment.selection(args.model, args.scale, judge, backend())
    with moment(store) as now:
        found = closing_table.lines(now, params, experiment, chosen)
        note, streams = closing_table.note(now, chosen, found), dosed.streams(now, chosen, [line.key for line in found])
    if not any(line.counted for line in found):
        raise DataError(
            f"{experiment.name} has no graded trials of {args.model!r} at scale {args.scale!r} by {judge or 'any judge'!r}; "
            '`python -m esr sql "from summary"` shows what there is'
        )
    told = {"experiment": experiment.name, "model": args.model, "scale": args.scale, "judge": judge}
    if args.json:
        sys.stdout.write(json.dumps({**told, "streams": streams, "arms": [_arm(line) for line in found]}, indent=1) + "\n")
    else:
        _show(f"{experiment.name} on {args.model}, scale {args.scale}, judge {judge}", found, note)
    return 0


def _arm(line: "Line") -> dict[str, Any]:
    one = line.counted
    numbers = {} if one is None else {name: asdict(e) for name, e in one.estimates.items()}
    held = {} if one is None else {name: asdict(d) for name, d in one.differences.items()}
    alike = {} if one is None else {name: asdict(d) for name, d in one.standardised.items()}
    told = {"arm": line.key, "n": one.n if one else 0, "missing": line.missing, "metrics": numbers}
    told["dose"] = asdict(line.dose) if line.dose else None
    if one and one.audited:
        told["audited"] = dict(one.audited)
    return {**told, "minus_baseline": held, "minus_baseline_at_equal_score": alike}


def _show(title: str, found: "list[Line]", note: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from esr.show.audited import HEADER as AUDITED
    from esr.show.audited import NOTE as LABELS
    from esr.show.audited import cells
    from esr.show.closing_table import header, known

    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    shown, dose = found[0].shown, known(found)
    for name in (*header(shown, dose=dose), "effective n"):
        table.add_column(name, justify="left" if name == "arm" else "right", no_wrap=name == "arm")
    for line in found:
        sizes = [e.n_effective for name in shown if line.counted and (e := line.counted.estimates[name]).n_effective]
        table.add_row(*(cell.replace(" [", "\n[") for cell in line.cells(dose=dose)), ", ".join(f"{size:.0f}" for size in sizes))
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 150)
    console.print(table)
    console.print(f"{note} Effective n: of what is held against its pair.", soft_wrap=True)
    labels = [cells(told) for line in found if line.counted for told in line.counted.audited.values()]
    if labels:
        beside = Table(title="Audited by people", title_justify="left", box=None, padding=(0, 2, 0, 0))
        for name in AUDITED:
            beside.add_column(name, justify="left" if name in ("arm", "rate") else "right", no_wrap=name == "arm")
        for row in labels:
            beside.add_row(*(cell.replace(" [", "\n[") for cell in row))
        console.print(beside)
        console.print(LABELS, soft_wrap=True)
    methods = {e.method for line in found if line.counted for e in line.counted.estimates.values() if e.method}
    console.print("Methods: " + "; ".join(sorted(methods)), soft_wrap=True)
