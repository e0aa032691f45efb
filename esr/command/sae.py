"""python -m esr sae: an SAE of one's own, trained by SAELens on text that the model itself writes."""

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace


def arguments(parser: ArgumentParser) -> None:
    some = parser.add_subparsers(dest="how", metavar="how", required=True)
    make = some.add_parser("make", help="text, training and measures, as the recipe in params.yaml says; a GPU does it in minutes")
    text = some.add_parser(
        "text", help="the text alone, or a part of it, for processes that write it together, each on a GPU of its own"
    )
    text.add_argument(
        "--part", type=part, default="1/1", metavar="I/N", help="the I-th of N parts; `make` then finds them all there"
    )
    text.add_argument(
        "--rows",
        action="store_true",
        help="read the residual stream too and keep it beside the text, two bytes a value (23 GB for 20 million tokens of width 576), "
        "so that `make` has no reading left",
    )
    for command in (make, text):
        command.add_argument("model", help="a model of params.yaml whose SAE has a `recipe`")
        for name, what in (("replies", "to every prompt"), ("every", "ask only every so-manyth prompt")):
            command.add_argument(f"--{name}", type=int, metavar="N", help=f"{what} (the recipe's)")
    make.add_argument("--steps", type=int, metavar="N", help="of the training (the recipe's)")


def part(said: str) -> tuple[int, int]:
    """`2/4`, counted from 1."""
    which, _, of = said.partition("/")
    if not (which.isdecimal() and of.isdecimal() and 1 <= int(which) <= int(of)):
        raise ArgumentTypeError(f"{said!r} is no part; the second of four is 2/4")
    return int(which) - 1, int(of)


def run(args: Namespace) -> int:
    os.environ.setdefault("TQDM_DISABLE", "1")  # the steps are said a line each
    from esr import dictionary, params
    from esr.study.study import backend

    study = params.load()
    _, sae, recipe = dictionary.recipe_of(study, args.model)
    given = {name: value for name in ("replies", "every", "steps") if (value := getattr(args, name, None)) is not None}
    asked = sae.model_copy(update={"recipe": type(recipe).model_validate(recipe.model_dump() | given)})
    study = study.model_copy(update={"saes": {**study.saes, sae.name: asked}})

    def say(said: str) -> None:
        sys.stdout.write(f"{said}\n")

    if args.how == "text":
        dictionary.write(study, args.model, params.store(), backend(), say, args.part, rows=args.rows)
    else:
        dictionary.make(study, args.model, params.store(), backend(), say)
    return 0
