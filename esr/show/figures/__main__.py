"""What dvc.yaml runs: `export` what the store recorded, `draw` from exports alone.

python -m esr.show.figures export exp05 tiny
python -m esr.show.figures draw exp05 tiny
python -m esr.show.figures draw exp05 tiny tiny-plain
python -m esr.show.figures table
"""

import argparse
import os
import sys
from pathlib import Path

from esr import params
from esr.errors import EsrError
from esr.show import figures
from esr.show import recorded as export
from esr.store import Store


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m esr.show.figures", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, models in (("export", None), ("draw", "+")):
        command = commands.add_parser(name)
        command.add_argument("experiment")
        command.add_argument("model", nargs=models)
        command.add_argument("--scale", default="full")
        command.add_argument("--judge", help="default: the model's own")
    asked = parser.parse_args(argv)
    root = Path(os.environ.get("ESR_STORE") or params.HOME / "store")
    try:
        if asked.command == "export":
            p = params.load(asked.model, asked.scale)
            judge = asked.judge or p.model(asked.model).judge
            found = export.recorded(Store(root), p, asked.experiment, asked.model, judge)
            export.write(found, export.place(root, p, asked.experiment, asked.model, judge))
        else:
            figures.redraw([_folder(root, asked, model) for model in asked.model], root / "figures")
    except EsrError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _folder(root: Path, asked: argparse.Namespace, model: str) -> Path:
    p = params.load(model, asked.scale)
    return export.place(root, p, asked.experiment, model, asked.judge or p.model(model).judge)


if __name__ == "__main__":
    sys.exit(main())
