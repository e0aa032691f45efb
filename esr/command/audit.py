"""python -m esr audit: a blind sheet of replies for people to label, and their labels back into the store."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from esr.command.reading import existing


def arguments(parser: ArgumentParser) -> None:
    some = parser.add_subparsers(dest="what", metavar="draw | read", required=True)
    draw = some.add_parser("draw", help="a stratified sheet as CSV, and the chances that it was drawn by into the store")
    draw.add_argument("of", metavar="EXPERIMENT/MODEL", help="such as exp01/tiny")
    draw.add_argument("--n", type=int, default=200, help="replies in all, the same number of each arm (200)")
    draw.add_argument("--arms", default="", help="a,b: only these arms")
    draw.add_argument("--scale", default="full", help="full or smoke (full)")
    draw.add_argument("--judge", help="whose verdicts are audited; the model's own judge when left out")
    draw.add_argument("--to", type=Path, metavar="FILE", help="default: audit-EXPERIMENT-MODEL-SHEET.csv here; never written over")
    draw.add_argument("--seed", type=int, help="of the draw; that of params.yaml when left out")
    read = some.add_parser("read", help="the labels of a sheet: single, multi (a second attempt, no better) or corrected")
    read.add_argument("file", type=Path)
    read.add_argument("--author", default="", help="who labelled, where the column author is empty")


def run(args: Namespace) -> int:
    return _draw(args) if args.what == "draw" else _read(args)


def _draw(args: Namespace) -> int:
    from esr import params as parameters
    from esr.count.audit import LABELS
    from esr.errors import DataError
    from esr.study import audit

    experiment, _, model = args.of.partition("/")
    if not model or args.n < 1:
        raise DataError(
            f"{args.of!r} with {args.n} replies was asked for; name an experiment and a model, such as exp01/tiny, and one reply or more"
        )
    params, store = parameters.load(scale=args.scale), existing()
    judge = args.judge or (params.model(model).judge if model in params.models else "")
    if not judge:
        raise DataError(f"{model!r} is not in params.yaml, so its judge is not known; give --judge NAME")
    asked = {"scale": args.scale, "judge": judge, "n": args.n, "seed": params.seed if args.seed is None else args.seed}
    sheet = audit.draw(store, experiment, model, **asked, arms=[arm for arm in args.arms.split(",") if arm])
    file = args.to or Path(f"audit-{experiment}-{model}-{sheet.id}.csv")
    audit.write(sheet, file)
    for (arm, stratum), (drawn, size) in sorted(sheet.strata.items()):
        sys.stdout.write(f"  {experiment}/{arm:<24} {stratum:<20} {drawn:>5,} of {size:,}\n")
    sys.stdout.write(
        f"{file}: {len(sheet.rows)} replies; fill in label ({', '.join(LABELS)}), reason and author, then: python -m esr audit read {file}\n"
    )
    return 0


def _read(args: Namespace) -> int:
    from esr.study import audit

    taken = audit.read(existing(), args.file, args.author)
    sys.stdout.write(
        f"sheet {taken.sheet}: {taken.labelled} labels read, {taken.new} of them new, {taken.empty} lines still empty, {taken.drawn} replies "
        "on the sheet; `python -m esr table` shows the corrected rates beside the judge's\n"
    )
    return 0
