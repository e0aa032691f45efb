"""python -m esr sql: a query over tables and views that see the newest shards."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from esr.command.reading import existing

if TYPE_CHECKING:
    from rich.console import Console


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("query", help="DuckDB SQL; `from summary` alone is a query. `-` reads it from standard input")
    parser.add_argument("--json", action="store_true", help="a JSON list of objects instead of a table")
    parser.add_argument("--limit", type=int, default=200, help="rows shown in a table (200); --json gives all")


def run(args: Namespace) -> int:
    from esr.errors import DataError
    from esr.show.plain import plain

    table = existing().sql(sys.stdin.read() if args.query == "-" else args.query)
    table = table.rename_columns(distinct(table.schema.names))
    for field in table.schema:
        if _repeats(field.type):
            raise DataError(
                f"column {field.name!r} holds rows whose fields have no names of their own; struct_pack(a := …, b := …) gives them some"
            )
    if args.json:
        sys.stdout.write(json.dumps([plain(row) for row in table.to_pylist()], ensure_ascii=False, indent=1) + "\n")
    else:
        _show(table, args.limit)
    return 0


def distinct(names: Sequence[str]) -> list[str]:
    """A join may give two columns one name; the second becomes name_1, as DuckDB itself would call it."""
    found: list[str] = []
    for name in names:
        free = (f"{name}_{i}" for i in count(1) if f"{name}_{i}" not in (*found, *names))
        found.append(next(free) if name in found else name)
    return found


def _repeats(kind: Any) -> bool:
    """Whether a struct in it has two fields of one name, as of `row(1, 2)`, which no table or JSON object can show."""
    within = [kind.field(i) for i in range(kind.num_fields)]
    named = [field.name for field in within]
    return len(set(named)) < len(named) or any(_repeats(field.type) for field in within)


WIDEST = 100_000
"""Columns that a table may ask for."""


def _record(console: "Console", row: Mapping[str, Any]) -> None:
    """One row a column a line: names and values whole where the table would cut them."""
    from rich.markup import escape
    from rich.table import Table

    lines = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold")
    for name, value in row.items():
        lines.add_row(escape(name), escape(_cell(value)))
    console.print(lines)


def _show(table: Any, limit: int) -> None:
    """As a table where it fits, else row by row; nothing is cut for want of columns."""
    from rich.console import Console
    from rich.markup import escape
    from rich.measure import Measurement
    from rich.table import Table

    shown = Table(header_style="bold")
    for name, kind in zip(table.schema.names, table.schema.types, strict=True):
        shown.add_column(
            escape(name), justify="right" if str(kind).startswith(("int", "uint", "double", "float", "decimal")) else "left"
        )
    for row in table.slice(0, limit).to_pylist() if table.num_columns else []:
        shown.add_row(*(escape(_cell(value)) for value in row.values()))
    console = Console()
    wide = Measurement.get(console, console.options.update(max_width=WIDEST), shown).maximum
    if not console.is_terminal:
        console = Console(width=max(80, wide))
    if wide <= console.width:
        console.print(shown if table.num_columns else "done")
    else:
        for i, row in enumerate(table.slice(0, limit).to_pylist(), 1):
            console.print(f"[bold]row {i}[/bold]")
            _record(console, row)
    if table.num_rows > limit:
        console.print(f"{limit} of {table.num_rows} rows; --limit or --json shows more")


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 200 else text[:199] + "…"
