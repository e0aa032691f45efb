"""python -m esr recovery: whether replies come back to the question without saying so, judged where it is missing, by arm."""

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from esr.command.reading import existing

HEADER = ("arm", "n", "missing", "recovery", "not degraded", "and no restart")
NOTE = (
    "Recovery: relevance of the last third of a reply, in whole sentences, less that of the first, in points of 100; mean [95 % interval]. "
    "It is no attempt and no correction, and in no rate of `python -m esr table`. docs/recovery.md says how."
)


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("of", metavar="EXPERIMENT/MODEL", help="such as exp01/tiny")
    parser.add_argument("--judge", help="who reads; the model's own judge when left out")
    parser.add_argument("--scale", default="full", help="full or smoke (full)")
    parser.add_argument("--json", action="store_true")


def run(args: Namespace) -> int:
    from esr import params as parameters
    from esr.count.recovery import recovery
    from esr.errors import DataError
    from esr.judge.open import open_judge
    from esr.study.recovery import read

    experiment, _, model = args.of.partition("/")
    params, store = parameters.load(scale=args.scale), existing()
    name = args.judge or (params.model(model).judge if model in params.models else "")
    if not model or not name:
        raise DataError(f"{args.of!r} names no experiment and model of params.yaml; give one such as exp01/tiny, or --judge NAME")
    done = read(store, open_judge(params, name, store=store.root), experiment, model, args.scale, size=params.work.judge_shard)
    rows = store.sql(
        "select * from recovered where experiment = ? and model = ? and scale = ? and judge = ? order by arm, trial_id",
        [experiment, model, args.scale, name],
    ).to_pandas()
    arms = {str(arm): recovery(some, confidence=params.protocol.confidence) for arm, some in rows.groupby("arm", sort=True)}
    if args.json:
        told = [{"arm": f"{experiment}/{arm}", **asdict(one)} for arm, one in arms.items()]
        sys.stdout.write(json.dumps({"experiment": experiment, "model": model, "judge": name, "arms": told}) + "\n")
        return 0
    lines = [HEADER, *((f"{experiment}/{arm}", f"{one.every.n:,}", f"{one.missing:,}", *map(shown, (one.every, one.sound, one.wordless)))
                       for arm, one in arms.items())]  # fmt: skip
    wide = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    for line in lines:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, wide, strict=True)).rstrip() + "\n")
    cost = "unknown" if done.cost is None else f"${done.cost:.2f}"
    sys.stdout.write(f"{NOTE}\n{name}: {done.replies} replies, {done.stored} read before, cost {cost}\n")
    return 0


def shown(found: object) -> str:
    """`+3.1 [+1.2, +5.0]`"""
    value, interval, n = (getattr(found, name) for name in ("value", "interval", "n"))
    if value is None:
        return "–"
    span = f" [{interval.low:+.1f}, {interval.high:+.1f}]" if interval else f" ({getattr(found, 'no_interval', '')})"
    return f"{value:+.1f}{span} of {n:,}"
