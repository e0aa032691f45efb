"""python -m esr judge: what the judge `topical` knows, made from a model's own unsteered replies."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path


def arguments(parser: ArgumentParser) -> None:
    some = parser.add_subparsers(dest="what", metavar="what", required=True)
    made = some.add_parser(
        "reference",
        help="a model's unsteered replies to every evaluation question, counted; minutes on a GPU, a quarter of an hour for 16 on a CPU",
    )
    made.add_argument("model", help="a model of params.yaml")
    made.add_argument("--replies", type=int, default=64, metavar="N", help="to each question (64)")
    made.add_argument("--engine", choices=("vllm", "hf", "fake"), help="$ESR_ENGINE, or vllm")
    made.add_argument("--to", type=Path, metavar="FILE", help="where it is written (models/MODEL-reference.json.gz)")


def run(args: Namespace) -> int:
    from esr import params
    from esr.engine.open import open_engine
    from esr.errors import JudgeError
    from esr.judge.topical.reference import FEWEST
    from esr.params import resolve
    from esr.study.ordinary import reference
    from esr.study.study import backend

    if args.replies < FEWEST:
        raise JudgeError(
            f"--replies {args.replies} is too few to say what replies to a question are made of; give {FEWEST} or more"
        )
    study = params.load(args.model)
    engine = open_engine(study, args.model, args.engine or backend(), saes=False)
    made = reference(engine, study, args.model, args.replies, say=lambda said: sys.stdout.write(f"{said}\n"))
    path = args.to or resolve(f"models/{args.model}-reference.json.gz")
    made.write(path)
    users = [f"judges.{one.name}" for one in study.judges.values() if one.reference and resolve(one.reference) == path.absolute()]
    named = f"named by {', '.join(users)}" if users else "name it as `reference:` of a judge with `client: topical`"
    sys.stdout.write(f"{path}: {len(made.known)} questions, {args.replies} replies each, sha256 {made.sha256}; {named}\n")
    return 0
