"""python -m esr.tune examples|mixtures|train MODEL: what DVC's stages of checkpoints/dvc.yaml run; `stages` writes that file."""

import argparse
import logging
import sys
from collections.abc import Sequence

from esr.errors import EsrError
from esr.params import load
from esr.store import Store
from esr.study.study import Study
from esr.tune import making, stages
from esr.tune.places import Places
from esr.tune.train import train


def main(argv: Sequence[str] | None = None) -> int:
    words = argparse.ArgumentParser(prog="python -m esr.tune", description=__doc__)
    some = words.add_subparsers(dest="command", required=True)
    for name, told in (
        ("examples", "write the examples, and what was held out of them"),
        ("mixtures", "mix them, and write a recipe for each training"),
        ("train", "train one checkpoint with axolotl"),
    ):
        command = some.add_parser(name, help=told)
        command.add_argument("model", help="a model of params.yaml")
        if name == "train":
            command.add_argument("ratio", type=int, help="per cent of masked rows")
            command.add_argument("seed", type=int, help="of training")
    some.add_parser("stages", help="write checkpoints/dvc.yaml from params")
    args = words.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return _done(args)
    except EsrError as error:
        sys.stderr.write(f"python -m esr.tune {args.command}: {error}\n")
        return 2


def _done(args: argparse.Namespace) -> int:
    if args.command == "stages":
        stages.FILE.write_text(stages.text(), encoding="utf-8")
        return 0
    params, places = load(args.model), Places(args.model)
    if args.command == "train":
        train(params, places, args.ratio, args.seed)
        return 0
    study = Study(params, args.model, Store())
    (making.examples if args.command == "examples" else making.mixed)(study, places)
    study.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
