"""python -m esr schema: the store's tables and views as their SQL comments describe them."""

import sys
from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a table or view; all when left out")
    parser.add_argument("--markdown", action="store_true", help="the text of docs/store.md")


def run(args: Namespace) -> int:
    from esr.errors import StoreError, one_of
    from esr.store import schema

    if args.markdown:
        sys.stdout.write(schema.markdown())
        return 0
    found = schema.described()
    if args.name:
        names = [item.name for item in found]
        if args.name not in names:
            raise StoreError(one_of("table or view", args.name, names, "the store"))
        found = [item for item in found if item.name == args.name]
    for item in found:
        sys.stdout.write(f"\n{item.kind} {item.name}: {item.about}\n")
        wide = max(len(column.name) for column in item.columns)
        for column in item.columns:
            sys.stdout.write(f"  {column.name:<{wide}}  {column.type:<10.40}  {column.about}\n")
    return 0
