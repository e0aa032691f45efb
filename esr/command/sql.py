"""python -m esr sql: a query over tables and views that see the newest shards."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from decimal import Decimal
from itertools import count
from typing import Any


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("query", help="DuckDB SQL; `from summary` alone is a query. `-` reads it from standard input")
    parser.add_argument("--json", action="store_true", help="a JSON list of objects instead of a table")
    parser.add_argument("--limit", type=int, default=200, help="rows shown in a table (200); --json gives all")


def run(args: Namespace) -> int:
    from esr.store import Store

    table = Store().sql(sys.stdin.read() if args.query == "-" else args.query)
    table = table.rename_columns(distinct(table.schema.names))
    if args.json:
        sys.stdout.write(json.dumps([_plain(row) for row in table.to_pylist()], ensure_ascii=False, indent=1) + "\n")
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


def _plain(value: Any) -> Any:
    """What JSON can say: times as ISO text, NaN as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Decimal):  # of a sum over whole numbers too
        return int(value) if value == value.to_integral_value() else float(value)
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _show(table: Any, limit: int) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = Table(header_style="bold")
    for name, kind in zip(table.schema.names, table.schema.types, strict=True):
        shown.add_column(
            escape(name), justify="right" if str(kind).startswith(("int", "uint", "double", "float", "decimal")) else "left"
        )
    for row in table.slice(0, limit).to_pylist() if table.num_columns else []:
        shown.add_row(*(escape(_cell(value)) for value in row.values()))
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(80, 24 * max(1, table.num_columns)))
    console.print(shown if table.num_columns else "done")
    if table.num_rows > limit:
        console.print(f"{limit} of {table.num_rows} rows; --limit or --json shows more")


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 200 else text[:199] + "…"
