"""python -m esr.count coverage: how often the intervals hold the truth, by simulation."""

import argparse
from pathlib import Path

from esr.count import coverage


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m esr.count", description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("coverage", help="simulated studies whose truth is known, and the intervals on them")
    one.add_argument("--studies", type=int, default=2000, help="of each design and effect")
    one.add_argument("--out", type=Path, default=Path("docs/benchmarks/coverage.json"))
    asked = parser.parse_args()
    coverage.run(asked.studies, asked.out, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
