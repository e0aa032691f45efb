"""python -m esr runs: every run with its judge, status, cost and duration; names and hides them."""

import json
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from esr.command.reading import existing

if TYPE_CHECKING:
    from esr.store import Store


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=["list", "name", "hide", "unhide"], default="list", help="list, when left out")
    parser.add_argument("id", nargs="?", help="a run of the list; its first characters are enough")
    parser.add_argument("name", nargs="?", help="what `name` calls it")
    parser.add_argument("--all", action="store_true", help="hidden ones too")
    parser.add_argument("--json", action="store_true", help="a JSON list of objects instead of a table")


def run(args: Namespace) -> int:
    from esr.errors import DataError
    from esr.show.runs import listed

    store = existing()
    if args.action == "list":
        rows = [{key: value for key, value in row.items() if key != "manifest"} for row in listed(store, hidden=args.all)]
        sys.stdout.write(json.dumps(rows, indent=1, default=str) + "\n") if args.json else _show(rows)
        return 0
    if not args.id or (args.action == "name") != bool(args.name):
        wanted = "a run and its name" if args.action == "name" else "one run"
        raise DataError(f"`runs {args.action}` takes {wanted}; `python -m esr runs` lists them")
    change = {"name": args.name} if args.action == "name" else {"hidden": args.action == "hide"}
    found = of(store, args.id)
    store.put_run({**{key: value for key, value in found.items() if key != "recorded_at"}, **change})
    sys.stdout.write(f"{found['run_id']}: {found['experiment']} {found['model']} {found['scale']}, {args.action} done\n")
    return 0


def of(store: "Store", beginning: str) -> dict[str, Any]:
    """The one run whose id begins so."""
    from esr.errors import DataError

    rows = store.sql("select * from runs where starts_with(run_id, ?)", [beginning]).to_pylist()
    if len(rows) != 1:
        raise DataError(
            f"{len(rows) or 'no'} runs have an id that begins with {beginning!r}; `python -m esr runs --all` lists them"
        )
    return dict(rows[0])


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("id", "begun (UTC)", "experiment", "model", "scale", "judge", "status", "cost", "duration", "name"):
        table.add_column(name, justify="right" if name in ("cost", "duration") else "left", no_wrap=True)
    for row in rows:
        seconds = int(row["seconds"] or 0)
        table.add_row(
            row["run_id"][:8],
            f"{row['started_at']:%Y-%m-%d %H:%M}" if row["started_at"] else "",
            *(row[name] or "" for name in ("experiment", "model", "scale", "judge", "status")),
            "unknown" if row["cost"] is None and row["status"] != "running" else f"${row['cost'] or 0:.2f}",
            f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}",
            (row["name"] or "") + (" (hidden)" if row["hidden"] else ""),
        )
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 170)
    console.print(table if rows else "no run is recorded in this store")
