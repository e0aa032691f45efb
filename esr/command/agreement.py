"""python -m esr agreement: how far judges agree on the replies that several graded."""

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from esr.command.reading import existing


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--where", default="true", help="SQL over o (outcomes), for instance \"o.experiment = 'exp01'\"")
    parser.add_argument(
        "--sampled-by", default="", help="the judge whose outcomes a sample was enriched by: replies are weighted for it"
    )
    parser.add_argument("--json", action="store_true")


def run(args: Namespace) -> int:
    from esr.count import agreement
    from esr.params import load
    from esr.study import rejudge

    params, store = load(), existing()
    rows = store.sql(f"select o.* from outcomes o where ({args.where})").to_pandas()
    if args.sampled_by:
        rows = rejudge.weighted(rows, args.sampled_by)
    found = agreement.pairs(rows, confidence=params.protocol.confidence)
    if args.json:
        sys.stdout.write(json.dumps([asdict(pair) for pair in found]) + "\n")
        return 0
    for pair in found:
        sys.stdout.write(f"{pair.judge} and {pair.other}: {pair.n} replies, {pair.n_multi} multi-attempt for both\n")
        for name in agreement.MEASURES:
            sys.stdout.write(f"  {name:<10} {shown(getattr(pair, name))}\n")
    if not found:
        sys.stdout.write("no two judges have graded the same replies; `python -m esr rejudge JUDGE` makes the second\n")
    return 0


def shown(measured: object) -> str:
    value, interval = getattr(measured, "value", None), getattr(measured, "interval", None)
    if value is None:
        return "-"
    return f"{value:.3f}" + (f"  [{interval.low:.3f}, {interval.high:.3f}]" if interval else "")
