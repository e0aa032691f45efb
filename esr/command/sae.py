"""python -m esr sae: an SAE of one's own, trained by SAELens on text that the model itself writes."""

import os
import sys
from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    some = parser.add_subparsers(dest="how", metavar="how", required=True)
    make = some.add_parser("make", help="text, training and measures, as the recipe in params.yaml says; a GPU does it in minutes")
    make.add_argument("model", help="a model of params.yaml whose SAE has a `recipe`")
    for name, what in (("replies", "to every prompt"), ("every", "ask only every so-manyth prompt"), ("steps", "of the training")):
        make.add_argument(f"--{name}", type=int, metavar="N", help=f"{what} (the recipe's)")


def run(args: Namespace) -> int:
    os.environ.setdefault("TQDM_DISABLE", "1")  # the steps are said a line each
    from esr import dictionary, params
    from esr.study.study import backend

    study = params.load()
    _, sae, recipe = dictionary.recipe_of(study, args.model)
    given = {name: value for name in ("replies", "every", "steps") if (value := getattr(args, name)) is not None}
    asked = sae.model_copy(update={"recipe": type(recipe).model_validate(recipe.model_dump() | given)})
    study = study.model_copy(update={"saes": {**study.saes, sae.name: asked}})
    dictionary.make(study, args.model, params.store(), backend(), say=lambda said: sys.stdout.write(f"{said}\n"))
    return 0
