"""python -m esr directions: contrasted texts in a model's own words, from which its set of directions is made."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path


def arguments(parser: ArgumentParser) -> None:
    some = parser.add_subparsers(dest="how", metavar="how", required=True)
    made = some.add_parser("texts", help="of each subject a few unsteered replies; two minutes on a CPU")
    made.add_argument("model", help="a model of params.yaml")
    made.add_argument("--subjects", type=int, default=200, metavar="N", help="the first of the labels' subjects (200)")
    made.add_argument("--texts", type=int, default=2, metavar="N", help="of each (2)")
    made.add_argument("--to", type=Path, metavar="FILE", help="where it is written (models/MODEL-contrast.tsv)")


def run(args: Namespace) -> int:
    from esr.labelling import contrast
    from esr.params import resolve
    from esr.study.study import Study

    study = Study.of(args.model)
    try:
        text = contrast.table(study, args.subjects, args.texts)
    finally:
        study.close()
    path = args.to or resolve(f"models/{args.model}-contrast.tsv")
    path.write_text(text, encoding="utf-8", newline="")
    users = [
        f"directions.{one.name}" for one in study.params.directions.values() if one.texts and resolve(one.texts) == path.absolute()
    ]
    named = f"named by {', '.join(users)}" if users else "name it as `texts:` of a block under directions: in params.yaml"
    sys.stdout.write(f"{path}: {args.subjects} subjects, {args.texts} texts each; {named}\n")
    return 0
