"""python -m esr paper: all figures, tables and numbers in one folder, and texts in which those numbers stand."""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path

EXAMPLES = {
    "draw": "python -m esr paper draw",
    "expand": "python -m esr paper expand abstract.tex --to abstract.txt",
    "check": "python -m esr paper check main.tex",
}


def arguments(parser: ArgumentParser) -> None:
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = "examples:\n" + "\n".join(f"  {line}" for line in EXAMPLES.values())
    some = parser.add_subparsers(dest="what", metavar="what", required=True)
    draw = _sub(some.add_parser, "draw", "every figure, table and number of what was run, for every model, with a page over them")
    draw.add_argument("--to", type=Path, metavar="DIR", help="the folder (paper/ in the store)")
    expand = _sub(some.add_parser, "expand", "a plain-text abstract: every macro of numbers.tex replaced by its number")
    expand.add_argument(
        "text", metavar="FILE", help="a text with macros such as \\esrExpZeroOneTinyBaselineEsrRate; - for standard input"
    )
    expand.add_argument("--to", type=Path, metavar="FILE", help="where the plain text goes; standard output when left out")
    check = _sub(some.add_parser, "check", "whether a LaTeX text uses only macros that numbers.tex defines")
    check.add_argument("text", metavar="FILE", nargs="+", help="LaTeX files")
    for one in (expand, check):
        one.add_argument("--numbers", type=Path, metavar="DIR", help="the folder that `draw` wrote (paper/ in the store)")


def _sub(add: Callable[..., ArgumentParser], name: str, about: str) -> ArgumentParser:
    return add(
        name, help=about, description=about, epilog=f"example:\n  {EXAMPLES[name]}", formatter_class=RawDescriptionHelpFormatter
    )


def run(args: Namespace) -> int:
    return {"draw": _draw, "expand": _expand, "check": _check}[args.what](args)


def _draw(args: Namespace) -> int:
    from esr import params
    from esr.command.reading import existing
    from esr.show.manuscript import folder, imported

    store = existing()
    left = imported.export(store, params.load()) if (store.root / "shards").is_dir() else {}
    page = folder.write(store.root, args.to, left)
    sys.stdout.write(f"{page}: {folder.summary(page.parent)}\n")
    return 0


def _expand(args: Namespace) -> int:
    from esr.show.manuscript import expand

    where = "standard input" if args.text == "-" else args.text
    text = sys.stdin.read() if args.text == "-" else Path(args.text).read_text(encoding="utf-8")
    plain = expand.expanded(text, expand.read(_numbers(args)), where=where)
    if args.to:
        args.to.write_text(plain, encoding="utf-8")
    else:
        sys.stdout.write(plain)
    return 0


def _check(args: Namespace) -> int:
    from esr.show.manuscript import expand

    told = expand.read(_numbers(args))
    for file in args.text:
        used = expand.check(Path(file).read_text(encoding="utf-8"), told, where=file)
        sys.stdout.write(f"{file}: {used} numbers, all of them defined\n")
    return 0


def _numbers(args: Namespace) -> Path:
    from esr import params
    from esr.show.manuscript import folder

    given: Path | None = args.numbers
    return given or params.store() / folder.NAME
