"""python -m esr rejudge: grade stored replies with a judge, only what it has not graded."""

import sys
from argparse import ArgumentParser, Namespace

from esr.command.reading import existing


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("judge", help="a name under judges: in params.yaml")
    parser.add_argument("--where", default="true", help="SQL over m (members), t (trials), r (replies), o (outcomes)")
    parser.add_argument("--sample", type=int, default=0, help="at most this many: every multi-attempt reply, then others; 0: all")
    parser.add_argument(
        "--per-model",
        type=int,
        default=100,
        help="of the sample, this many replies of each model before others (100), as far as it is large enough",
    )
    parser.add_argument("--of", default="", help="the judge whose outcomes the sample is enriched by; default: the one with most")
    parser.add_argument("--again", action="store_true", help="ask once more where an answer was unusable")


def run(args: Namespace) -> int:
    from esr.errors import DataError
    from esr.judge.open import open_judge
    from esr.params import load
    from esr.study import rejudge

    params, store = load(), existing()
    judge = open_judge(params, args.judge, store=store.root)
    questions = rejudge.stored(store, args.where)
    if not questions:
        raise DataError(f'no stored reply for which {args.where!r} holds; `python -m esr sql "from summary"` shows what there is')
    if args.sample:
        of = (
            args.of or store.sql("select judge from outcomes group by judge order by count(*) desc limit 1").to_pylist()[0]["judge"]
        )
        picked = rejudge.sample(store, of, size=args.sample, per_model=args.per_model, seed=params.seed)
        questions = rejudge.among(questions, picked)
    done = rejudge.rejudge(store, judge, questions, size=params.work.judge_shard, again=args.again)
    missing = ", ".join(f"{n} {reason}" for reason, n in sorted(done.missing.items())) or "none"
    sys.stdout.write(
        f"{args.judge}: {done.replies} replies, {done.stored} graded before, missing now: {missing}, cost {done.bill}\n"
    )
    return 0
