"""python -m esr export-inspect: results as logs that `inspect view` opens, a file an arm, with the arms that they are compared with."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from esr.command.reading import existing

if TYPE_CHECKING:
    from esr.store import Store
    from esr.types import Arm


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("experiment", help="an experiment that has trials, such as exp01")
    parser.add_argument("model", help="a model of params.yaml, or the name under which results were imported")
    parser.add_argument("--to", type=Path, metavar="DIR", help="folder of the logs (inspect/<experiment>-<model> in the store)")
    parser.add_argument("--scale", default="full", help="full or smoke (full)")
    parser.add_argument(
        "--judge",
        action="append",
        default=[],
        help="a judge whose grades are shown, may be given again; every judge's when left out",
    )


def run(args: Namespace) -> int:
    from esr import params as parameters
    from esr.errors import DataError
    from esr.show.inspect_log import log
    from esr.show.inspect_log.arm import source

    store = existing()
    arms = _arms(store, args)
    if not arms:
        raise DataError(
            f'{args.experiment} has no trials of {args.model!r} at scale {args.scale!r}; `python -m esr sql "from summary"` shows what there is'
        )
    known = args.model in parameters.load(scale=args.scale).models
    params = parameters.load(args.model if known else None, args.scale)
    into = args.to or store.root / "inspect" / f"{args.experiment}-{args.model}"
    into.mkdir(parents=True, exist_ok=True)
    bases = {arm.key: _against(store, arm, args) for arm in arms}
    beside = {one.key: one for one in bases.values() if one and one.experiment != args.experiment}
    read = {one.key: source(store, one, args.model, args.scale, args.judge) for one in {**beside, **_held(bases)}.values()}
    for arm in [*beside.values(), *arms]:
        found = read.get(arm.key) or source(store, arm, args.model, args.scale, args.judge)
        base = bases.get(arm.key)
        file = into / f"{quote(f'{arm.experiment}-{arm.name}-{args.model}', safe='+@=')}.eval"
        n = log.write(found, params, read[base.key] if base else None, file)
        sys.stdout.write(f"{file}: {n:,} samples, judges {', '.join(found.judges) or 'none'}\n")
    sys.stdout.write(f"inspect view --log-dir {into}\n")
    return 0


def _held(bases: "dict[str, Arm | None]") -> "dict[str, Arm]":
    """What arms are compared with."""
    return {one.key: one for one in bases.values() if one}


SELECT = """
select arm, coalesce(kind, '') as kind, level, place, coalesce(against, '') as against, mean, std from current_arms
where experiment = ? and model = ? and scale = ? order by kind, place, arm
"""


def _arms(store: "Store", args: Namespace, experiment: str = "") -> "list[Arm]":
    from esr.types import Arm

    experiment = experiment or args.experiment
    rows = store.sql(SELECT, [experiment, args.model, args.scale]).to_pylist()
    return [Arm(experiment, r["arm"], r["kind"], r["level"], int(r["place"] or 0), r["against"], r["mean"], r["std"]) for r in rows]


def _against(store: "Store", arm: "Arm", args: Namespace) -> "Arm | None":
    """The arm that it is held against, where that was run."""
    experiment, _, name = arm.against.partition("/")
    return next((one for one in _arms(store, args, experiment) if one.name == name), None) if name else None
