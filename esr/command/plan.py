"""python -m esr plan: trials, judge calls, tokens, time and cost of an experiment, counted without running it."""

import json
import sys
from argparse import ArgumentParser, Namespace
from typing import Any


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("experiment", help="an experiment of flows/, such as exp01")
    parser.add_argument("model", help="a model of params.yaml")
    parser.add_argument("--scale", default="full", help="full or smoke (full)")
    parser.add_argument("--judge", help="a judge of params.yaml; the model's own when left out")
    parser.add_argument(
        "--tokens-per-second",
        type=float,
        metavar="N",
        help="what your machine generates for this model (default: params.yaml's rough figure)",
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(args: Namespace) -> int:
    from esr import experiment as experiments
    from esr import params as parameters
    from esr.errors import ParamsError
    from esr.judge.estimate import estimate
    from esr.study.needs import needs
    from esr.study.workload import workload

    params = parameters.load(args.model, args.scale)
    judge = params.judge(args.judge or params.model(args.model).judge).name
    experiments.check(params)
    declared = experiments.find(args.experiment)
    asked = workload(params, declared)
    judging = estimate(params, judge, asked.judge_calls, reply_tokens=params.protocol.max_tokens)
    told = args.tokens_per_second
    speed = params.model(args.model).tokens_per_second if told is None else told
    if speed is not None and not 0 < speed < float("inf"):
        raise ParamsError(f"--tokens-per-second is {speed:g} and should be above 0; give the rate that you measured")
    wanting = needs(params, args.model, parameters.store(), judge=judge)
    found: dict[str, Any] = {
        "experiment": args.experiment,
        "model": args.model,
        "scale": args.scale,
        "latents": asked.latents,
        "search_replies": asked.search,
        "discovery_replies": asked.discovery,
        "baseline_trials": asked.baseline,
        "own_arms": asked.arms,
        "own_trials": asked.own,
        "named": declared.named(params) if declared.named else "",
        "replies": asked.replies,
        "tokens_at_most": asked.tokens,
        "tokens_per_second": speed,
        "hours_at_most": round(asked.tokens / speed / 3600, 1) if speed else None,
        "judge": judge,
        "judge_calls": asked.judge_calls,
        "judge_tokens_in": judging.input_tokens,
        "judge_tokens_out": judging.output_tokens,
        "judge_cost": None if judging.cost is None else round(judging.cost, 2),
        "judge_hours_at_least": None if judging.hours is None else round(judging.hours, 1),
        "texts": asked.texts,
        "texts_cost": None if asked.texts_cost is None else round(asked.texts_cost, 2),
        "labels": next(need.said for need in wanting if need.what == "labels"),
        "doctor": f"python -m esr doctor {args.model}" + (f" --judge {args.judge}" if args.judge else ""),
        "missing": [f"{need.what}: {need.said}" for need in wanting if not need.there],
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if args.json else _told(found))
    return 0


def _told(found: dict[str, Any]) -> str:
    hours, cost, wait = found["hours_at_most"], found["judge_cost"], found["judge_hours_at_least"]
    lines = [
        f"{found['experiment']} {found['model']} {found['scale']}: at most {found['replies']:,} replies, {found['tokens_at_most']:,} tokens",
        f"  calibrate   {found['search_replies']:,} replies for {found['latents']:,} latents",
        f"  discover    {found['discovery_replies']:,} unsteered replies" if found["discovery_replies"] else "",
        f"  experiment 1  {found['baseline_trials']:,} trials" if found["baseline_trials"] else "",
        f"  own arms    {found['own_trials']:,} trials in {found['own_arms']} arms" if found["own_arms"] else "",
        f"  named       {found['named']}" if found["named"] else "",
        "  generating  "
        + (
            f"at most {hours:,} h at {found['tokens_per_second']:,g} tokens a second; --tokens-per-second for your machine's"
            if hours is not None
            else "the time is unknown; give --tokens-per-second"
        ),
        f"  judge {found['judge']}  {found['judge_calls']:,} calls, {found['judge_tokens_in']:,} tokens in, {found['judge_tokens_out']:,} out: "
        + (f"about ${cost:,.2f}" if cost is not None else "price unknown")
        + (f", at least {wait:,} h" if wait else ""),
        f"  examples    {found['texts']:,} texts by a provider: {_dollars(found['texts_cost'])}" if found["texts"] else "",
        f"  labels      {found['labels']}" if found["labels"].startswith("done without") else "",
        *(f"  not here    {said}" for said in found["missing"]),
        f"it cannot start yet; `{found['doctor']}` has the lines that mend it" if found["missing"] else "",
        "what is in the store already is not done again",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _dollars(cost: float | None) -> str:
    return "price unknown" if cost is None else f"at most about ${cost:,.2f}, once"
