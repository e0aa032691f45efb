"""python -m esr.params new-model FOLDER_OR_HUB_ID: a model's block for params.yaml, printed, or added with --add."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from esr.errors import EsrError
from esr.params.load import load, parse
from esr.params.new_model import config_of, draft
from esr.params.places import HOME, path
from esr.whole import place


def main(argv: Sequence[str] | None = None) -> int:
    words = argparse.ArgumentParser(prog="python -m esr.params")
    some = words.add_subparsers(dest="command", required=True)
    new = some.add_parser("new-model", help="a model's block, read from its config.json")
    new.add_argument("hub", help="a Hugging Face folder or a hub id")
    new.add_argument("--name", help="what the model is called here (the last part of its id)")
    new.add_argument("--sae", help="a name under saes: (the only one that reads the model's width)")
    new.add_argument("--judge", help="a name under judges: (that of the most similar model)")
    new.add_argument("--add", action="store_true", help="add it to params.yaml instead of printing it")
    args = words.parse_args(argv)
    try:
        return new_model(args)
    except EsrError as error:
        sys.stderr.write(f"python -m esr.params {args.command}: {error}\n")
        return 2


def new_model(args: argparse.Namespace) -> int:
    folder = Path(args.hub).expanduser()
    hub = _written(folder) if folder.is_dir() else args.hub
    name = args.name or re.sub(r"[^a-z0-9.-]+", "-", folder.name.lower())
    made = draft(config_of(args.hub), load(), hub=hub, name=name, sae=args.sae, judge=args.judge)
    text = made.added(path().read_text(encoding="utf-8"))
    parse(yaml.safe_load(text), name, "full", where=path().name)
    if not args.add:
        sys.stdout.write(made.text())
        return 0
    place(path(), text)
    sys.stdout.write("".join(f"{line}\n" for line in made.guessed) + f"{name} is in {path()}\n")
    return 0


def _written(folder: Path) -> str:
    """As params.yaml writes it: relative to the checkout where it lies in it."""
    whole = folder.resolve()
    return str(whole.relative_to(HOME)) if whole.is_relative_to(HOME) else str(whole)


if __name__ == "__main__":
    raise SystemExit(main())
