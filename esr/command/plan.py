"""python -m esr plan: trials, judge calls, tokens, time and cost of experiments, counted without running them.

`plan exp01 70b` is of one run; `plan all --gpus 8` of many experiments on several models, dealt out to so many GPUs.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from typing import Any


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "experiment", help="an experiment of flows/, such as exp01; with --gpus also several with commas between, or all"
    )
    parser.add_argument("model", nargs="?", help="a model of params.yaml; with --gpus also several, or none for all published ones")
    parser.add_argument("--gpus", type=int, nargs="+", metavar="N", help="how long it takes on so many GPUs, by simulation")
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
    from esr.errors import ParamsError

    if args.gpus is not None:
        return _on_gpus(args)
    if args.model is None:
        raise ParamsError(
            f"a plan of {args.experiment} needs a model; `python -m esr plan {args.experiment} 70b`, or --gpus for all models"
        )
    return _of_one(args)


AUTHORS = (185, 245)
"""GPU hours of ten experiments on five models in the authors' way, estimated for their code: one reply after the other, every search in full."""


def _on_gpus(args: Namespace) -> int:
    from dataclasses import replace

    from esr import experiment as experiments
    from esr import params as parameters
    from esr.errors import ParamsError
    from esr.study.makespan import load_of, simulate

    if min(args.gpus) < 1:
        raise ParamsError(f"--gpus is {min(args.gpus)} and should be 1 or more")
    every = parameters.load().models
    names = args.model.split(",") if args.model else [name for name, model in every.items() if model.revision != "local"]
    declared = (
        list(experiments.known().values())
        if args.experiment == "all"
        else [experiments.find(e) for e in args.experiment.split(",")]
    )
    all_params = {name: parameters.load(name, args.scale) for name in names}
    loads = [load_of(params, name, declared, args.judge) for name, params in all_params.items()]
    if args.tokens_per_second is not None:
        loads = [replace(load, speed=args.tokens_per_second) for load in loads]
    slow = [load.model for load in loads if not 0 < load.speed < float("inf")]
    if slow:
        raise ParamsError(f"nothing says how fast {slow[0]} is; give tokens_per_second in its block, or --tokens-per-second")
    large = next((load for load in loads if load.gpus > min(args.gpus)), None)
    if large is not None:
        raise ParamsError(
            f"an engine of {large.model} takes {large.gpus} GPUs and --gpus is {min(args.gpus)}; give {large.gpus} or more"
        )
    clients = {load.judge: all_params[load.model].judge(load.judge) for load in loads}
    providers = {
        name: judge.api_base or (judge.client if judge.client == "anthropic" else judge.model) for name, judge in clients.items()
    }
    free = [replace(load, per_minute=0) for load in loads]
    spans = [(simulate(loads, n, providers), simulate(free, n, providers)) for n in sorted(set(args.gpus))]
    costs = [load.cost for load in loads]
    found: dict[str, Any] = {
        "experiments": [one.name for one in declared],
        "scale": args.scale,
        "models": [
            {"model": load.model, "replies": load.replies, "tokens_at_most": load.tokens, "gpu_hours": round(load.hours, 1), "judge": load.judge,
             "judge_calls": load.calls, "judge_cost": None if load.cost is None else round(load.cost, 2)}
            for load in loads
        ],
        "gpu_hours": round(sum(load.hours for load in loads), 1),
        "judge_cost": None if None in costs else round(sum(cost for cost in costs if cost is not None), 2),
        "authors_gpu_hours": AUTHORS,
        "on": [
            {"gpus": span.gpus, "hours": round(span.hours, 1), "generating": round(span.busy, 3), "engines_opened": span.opened,
             "shards": span.shards, "judge_hours_at_least": round(span.judging, 1), "bottleneck": span.bottleneck,
             "hours_without_the_judges_limit": round(other.hours, 1), "bottleneck_then": other.bottleneck}
            for span, other in spans
        ],
    }  # fmt: skip
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if args.json else _table(found))
    return 0


def _table(found: dict[str, Any]) -> str:
    lines = [f"{', '.join(found['experiments'])}, scale {found['scale']}; all numbers at most"]
    for row in found["models"]:
        lines.append(
            f"  {row['model']:<10} {row['replies']:>9,} replies {row['tokens_at_most'] / 1e6:>7,.1f} M tokens {row['gpu_hours']:>6,.1f} GPU h "
            f"{row['judge_calls']:>9,} calls of {row['judge']} {_dollars(row['judge_cost']).removeprefix('at most ').removesuffix(', once')}"
        )
    low, high = found["authors_gpu_hours"]
    cost = "price unknown" if found["judge_cost"] is None else f"about ${found['judge_cost']:,.0f}"
    lines.append(
        f"  together   {found['gpu_hours']:,.1f} GPU h, {cost}; ten experiments on five models take {low} to {high} GPU h in the authors' way"
    )
    for row in found["on"]:
        lines.append(
            f"on {row['gpus']:>3} GPU{'s' if row['gpus'] > 1 else ' '}  {row['hours']:>6,.1f} h, {row['generating']:.0%} of the time generating, "
            f"limited by {row['bottleneck']}; without the judge's limit {row['hours_without_the_judges_limit']:,.1f} h, by {row['bottleneck_then']}"
        )
    lines.append(
        "not counted: reading activations, training checkpoints, waiting in a provider's queue (judging.mode: batch has no limit a minute)"
    )
    return "\n".join(lines) + "\n"


def _of_one(args: Namespace) -> int:
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
