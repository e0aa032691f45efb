"""python -m esr detectors: the detectors' table, how active each is under its own and under others' questions."""

import sys
from argparse import ArgumentParser, Namespace

from esr.command.reading import existing


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", help="a model in params.yaml whose detectors were found, by experiment 3 for instance")
    parser.add_argument("--format", default="markdown", help="markdown, csv or latex (markdown)")
    parser.add_argument("--set", default="", help="set_id, or its beginning, where there are several sets")


def run(args: Namespace) -> int:
    from esr.show import detector_table

    sys.stdout.write(detector_table.text(existing(), args.model, args.format, args.set))
    return 0
