"""python -m esr take: what a colleague shared becomes part of this store; the same again changes nothing."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="a folder that `python -m esr share` has made")


def run(args: Namespace) -> int:
    from esr.store import Store
    from esr.store.parcel import unpack

    found, both = unpack(args.folder, Store())
    sys.stdout.write(f"taken: {', '.join(f'{n:,} {table}' for table, n in found.items())}\n")
    for arm in both:
        sys.stdout.write(f"{arm}: planned here otherwise; of the two plans the one recorded later counts\n")
    return 0
