"""What dvc.yaml runs: `export` what the store recorded, `draw` from exports alone.

python -m esr.show.figures export exp05 tiny
python -m esr.show.figures draw exp05 tiny
python -m esr.show.figures draw exp05 tiny tiny-plain
"""

import argparse
import sys
from pathlib import Path

from esr import experiment as experiments
from esr import params
from esr.errors import EsrError
from esr.show import figures, recorded
from esr.show.moment import moment
from esr.store import Store
from esr.study.study import backend


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
    root = params.store()
    try:
        if asked.command == "export":
            p = params.load(asked.model, asked.scale)
            experiment = experiments.find(asked.experiment)
            chosen = experiment.selection(asked.model, asked.scale, asked.judge or p.model(asked.model).judge, backend())
            with moment(Store(root)) as now:
                found = recorded.recorded(now, p, experiment, chosen)
            recorded.write(found, recorded.place(root, p, chosen))
        else:
            figures.redraw([_folder(root, asked, model) for model in asked.model], root / "figures")
    except EsrError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _folder(root: Path, asked: argparse.Namespace, model: str) -> Path:
    p, experiment = params.load(model, asked.scale), experiments.find(asked.experiment)
    return recorded.place(root, p, experiment.selection(model, asked.scale, asked.judge or p.model(model).judge, backend()))


if __name__ == "__main__":
    sys.exit(main())
