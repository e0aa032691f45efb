"""python -m esr experiments: what can be run, what each asks and where the paper reports it."""

import sys
from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="the table of README.md")


def run(args: Namespace) -> int:
    from esr.experiment import known

    found = known()
    if args.markdown:
        sys.stdout.write(markdown())
        return 0
    for experiment in found.values():
        sys.stdout.write(f"{experiment.name}  {experiment.question}  ({experiment.paper})\n")
        tables = ", ".join(table.name for table in experiment.tables)
        block = experiment.settings.block if experiment.settings else "none of its own"
        sys.stdout.write(f"       settings {block} · tables {tables} · figures {', '.join(experiment.drawings())}\n")
    return 0


def markdown() -> str:
    from esr.experiment import known

    rows = [f"| `{one.name}` | {one.question} | {one.paper} |" for one in known().values()]
    return "\n".join(["| experiment | asks | paper |", "|---|---|---|", *rows]) + "\n"
