"""python -m esr share: an experiment's results as a folder for a colleague, who takes it with `python -m esr take`."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from esr.command.reading import existing


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("experiment", help="an experiment in the store, such as exp01")
    parser.add_argument("model", help="a model of params.yaml, or the name under which results were imported")
    parser.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="a new folder; it can be queried as a store too")


def run(args: Namespace) -> int:
    from esr.store.parcel import pack

    found = pack(existing(), args.experiment, args.model, args.to)
    sys.stdout.write(
        f"{args.to}: {', '.join(f'{n:,} {table}' for table, n in found.items() if n)}; taken with python -m esr take\n"
    )
    return 0
