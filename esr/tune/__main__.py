"""python -m esr.tune examples|mixtures|train MODEL: what DVC's stages of checkpoints/dvc.yaml run; `stages` writes that file.

`all MODEL --at-once N` does without DVC what they do, N trainings side by side.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from esr.errors import EsrError
from esr.params import load
from esr.store import Store
from esr.study.study import Study
from esr.tune import fetch, making, stages, together
from esr.tune.places import Course, Places
from esr.tune.train import train

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    words = argparse.ArgumentParser(prog="python -m esr.tune", description=__doc__)
    some = words.add_subparsers(dest="command", required=True)
    for name, told in (
        ("examples", "write the examples, and what was held out of them"),
        ("mixtures", "mix them, and write a recipe for each training"),
        ("train", "train one checkpoint with axolotl"),
        ("all", "examples, mixtures and every checkpoint; what is there and current is left as it is"),
    ):
        command = some.add_parser(name, help=told)
        command.add_argument("model", help="a model of params.yaml")
        if name == "train":
            command.add_argument("course", metavar="RATIO-SEED", help="per cent of masked rows, and the seed of training: 50-1")
        if name == "all":
            command.add_argument("--at-once", type=int, default=1, metavar="N", help="trainings side by side (default: 1)")
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
        train(params, places, Course.of(args.course))
        return 0
    if args.command == "all":
        made = together.everything(params, places, max(1, args.at_once))
        if fetch.installed():
            fetch.record(places, made)
            log.info("DVC knows them: %d checkpoints of %s", len(made), args.model)
        return 0
    study = Study(params, args.model, Store())
    (making.examples if args.command == "examples" else making.mixed)(study, places)
    study.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
