"""python -m esr compare: two arms, models or judges held against each other in pairs, with intervals."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from esr.command.reading import existing

if TYPE_CHECKING:
    import pandas as pd

    from esr.count.metrics import Difference
    from esr.store import Store

KINDS = ("arm", "model", "judge")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("a", help="an arm (exp05/self_monitor), a model or a judge that has graded outcomes")
    parser.add_argument("b", help="another of the same kind; what is shown is the first minus this one")
    parser.add_argument("--arm", default="exp01/baseline", help="of models or judges: in this arm (exp01/baseline)")
    parser.add_argument("--model", help="of arms or judges: on this model; needed where there are several")
    parser.add_argument("--judge", help="of arms or models: by this judge; needed where there are several")
    parser.add_argument("--scale", default="full", help="full or smoke (full)")
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(args: Namespace) -> int:
    from esr.count.metrics import differences
    from esr.params import load

    store, params = existing(), load()
    kind = _kind(store, args.a, args.b)
    one, other = (_rows(store, args, kind, name, params.protocol.exclude_degraded) for name in (args.a, args.b))
    first, second = _alike(one, other, kind, (args.a, args.b))
    found = differences(first, second, confidence=params.protocol.confidence)
    told = {"kind": kind, "a": args.a, "b": args.b, "scale": args.scale, "pairs": next(iter(found.values())).n}
    if args.json:
        every = {name: asdict(d) for name, d in found.items()}
        sys.stdout.write(json.dumps({**told, "n_a": len(one), "n_b": len(other), "differences": every}, indent=1) + "\n")
    else:
        _show(
            f"{args.a} − {args.b}, scale {args.scale}: {told['pairs']:,} pairs of {len(one):,} and {len(other):,} graded trials",
            found,
        )
    return 0


def _kind(store: "Store", a: str, b: str) -> str:
    """What both names are names of."""
    from esr.errors import DataError

    rows = store.sql("select distinct experiment || '/' || arm as arm, model, judge from outcomes").to_pylist()
    known = {kind: sorted({str(row[kind]) for row in rows}) for kind in KINDS}
    for kind, names in known.items():
        if a in names and b in names:
            return kind
    there = "; ".join(f"{kind}s: {', '.join(names[:12])}" for kind, names in known.items() if names)
    raise DataError(
        f"{a!r} and {b!r} are not two arms, two models or two judges with graded outcomes; {there or 'there are none yet'}"
    )


def _rows(store: "Store", args: Namespace, kind: str, name: str, exclude: bool) -> "pd.DataFrame":
    """Outcomes of one side, of one arm, one model and one judge."""
    from esr.count.metrics import outcomes_frame
    from esr.errors import DataError

    asked = {"arm": args.arm, "model": args.model, "judge": args.judge, kind: name}
    given = {key: value for key, value in asked.items() if value}
    columns = {"arm": "experiment || '/' || arm", "model": "model", "judge": "judge"}
    where = " and ".join(["scale = ?", *(f"{columns[key]} = ?" for key in given)])
    rows = store.sql(
        f"select * from outcomes where {where} order by latent, question, seed", [args.scale, *given.values()]
    ).to_pandas()
    if rows.empty:
        raise DataError(
            f"nothing graded of {', '.join(f'{key} {value!r}' for key, value in given.items())} at scale {args.scale!r}; "
            '`python -m esr sql "from summary"` shows what there is'
        )
    for key in ("model", "judge"):
        if key not in given and rows[key].nunique() > 1:
            raise DataError(
                f"{name!r} has outcomes of several {key}s: {', '.join(sorted(rows[key].unique()))}; choose one with --{key}"
            )
    return outcomes_frame(rows, exclude_degraded=exclude)


def _alike(one: "pd.DataFrame", other: "pd.DataFrame", kind: str, names: Sequence[str]) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Both sides, if they hold any pair of one latent, question and seed."""
    from esr.count.metrics import paired
    from esr.errors import DataError

    if not len(paired(one, other)[0]):
        raise DataError(
            f"{names[0]!r} and {names[1]!r} have no trial of one latent, question and seed in common, so nothing can be compared in pairs"
            + ("; models share latents only where they share an SAE" if kind == "model" else "")
        )
    return one, other


def _show(title: str, found: "dict[str, Difference]") -> None:
    from rich.console import Console
    from rich.table import Table

    from esr.show import words

    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("metric", "difference", "p", "method"):
        table.add_column(name, justify="right" if name in ("difference", "p") else "left", no_wrap=True)
    for name, d in found.items():
        p = "" if d.p is None else f"{d.p:.3g}"
        table.add_row(words.NAMES.get(name, name), words.difference(d), p, d.method or d.no_interval)
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 170)
    console.print(table)
    console.print(words.NOTE, soft_wrap=True)
