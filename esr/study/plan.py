"""What to generate, worked out before anything is generated: plans, ladders, replays. Pure.

    base = plan(params, arm=BASELINE, model="70b", weights=w, meaning=m, latents=latents, thresholds=thresholds,
                questions=questions, trials_per_latent=5)
    quiet = replay(base, Arm("exp08", "no-steering", "unsteered"), unsteered)
    clamped = replay(base, Arm("exp03", "detectors", "ablated"), ablated(params, "70b", detectors))
    told = replay(base, Arm("exp05", "self_monitor", "meta-prompt"), suffixed("self_monitor"))
    swept = ladder(params, base, "exp02", absolute_levels(thresholds.values(), 10, 3.0))

A replay keeps latent, question and seed and changes one thing, so every comparison is paired. All randomness comes from the one
root seed through named streams; a longer plan begins with the shorter one.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from esr import prompts
from esr.engine.intervention import Intervention, Points
from esr.errors import DataError
from esr.params import Params
from esr.types import Arm, Latent, Member, Op, Scope, Trial

Change = Callable[[Trial], Trial]


def stream(params: Params, *names: object) -> random.Random:
    """The random stream that belongs to these names."""
    return random.Random("/".join(str(part) for part in (params.seed, *names)))


def steer_op(params: Params, model: str, latent: int, boost: float) -> tuple[Op, ...]:
    """The distractor's decoder row added `boost` times at the steering layer, or its direction after each block of its set; nothing at 0."""
    m = params.model(model)
    if m.along and boost:
        return tuple(Op("add", latent, float(boost), layer, m.along) for layer in params.directions_of(m.along).layers)
    return (Op("add", latent, float(boost), m.steer_layer, m.sae),) if boost else ()


def clamp_ops(params: Params, model: str, latents: Iterable[int], value: float = 0.0) -> tuple[Op, ...]:
    """These latents held at `value` at the ablation layer."""
    m = params.model(model)
    return tuple(Op("clamp", latent, float(value), m.ablate_layer, m.sae) for latent in sorted(set(latents)))


def plan(
    params: Params,
    *,
    arm: Arm,
    model: str,
    weights: str,
    meaning: str,
    latents: Sequence[Latent],
    thresholds: Mapping[int, float],
    questions: Sequence[str],
    trials_per_latent: int,
) -> list[Member]:
    """Each latent steered at its own threshold on questions drawn without replacement."""
    lacking = [latent.index for latent in latents if latent.index not in thresholds]
    if lacking:
        raise DataError(f"{arm.experiment} was asked to steer latents {lacking[:5]} that have no threshold; calibrate them first")
    out = []
    for latent in latents:
        rng = stream(params, "trials", latent.index)
        threshold = float(thresholds[latent.index])
        for question, seed in _draws(rng, questions, trials_per_latent, params.protocol.n_seeds):
            trial = _trial(params, model, weights, meaning, latent, question, seed, threshold)
            out.append(Member(arm=arm, model=model, scale=params.scale, trial=replace(trial, threshold=threshold)))
    return out


def search_step(
    params: Params,
    *,
    model: str,
    weights: str,
    meaning: str,
    asks: Iterable[tuple[Latent, float]],
    step: int | str,
    questions: Sequence[str],
    samples: int | None = None,
    clamped: Sequence[int] = (),
) -> list[Member]:
    """The samples of one step of the threshold search; no question comes again before all came. `step` may also be a name, such as
    `verify`. `clamped`: latents held at zero meanwhile."""
    n = params.protocol.samples_per_step if samples is None else samples
    held = clamp_ops(params, model, clamped) if clamped else ()
    out = []
    for latent, boost in asks:
        before = step * n if isinstance(step, int) else 0
        rng = stream(params, "search", *(() if isinstance(step, int) else (step,)), latent.index)
        for question, seed in _draws(rng, questions, before + n, params.protocol.n_seeds)[before:]:
            trial = _trial(params, model, weights, meaning, latent, question, seed, float(boost), search=True)
            trial = replace(trial, ops=trial.ops + held)
            out.append(
                Member(arm=Arm("calibration", f"step-{step}", against=""), model=model, scale="", trial=trial)
            )  # of no scale: never recorded
    return out


def replay(members: Iterable[Member], arm: Arm, change: Change) -> list[Member]:
    """The same trials with one thing changed."""
    return [replace(member, arm=arm, trial=change(member.trial)) for member in members]


def unsteered(trial: Trial) -> Trial:
    """No intervention at all; the judge is still told of the distractor."""
    return replace(trial, ops=(), boost=0.0)


def ablated(params: Params, model: str, latents: Iterable[int]) -> Change:
    """These latents held at zero, beside the steering."""
    clamps = clamp_ops(params, model, latents)
    return lambda trial: replace(trial, ops=trial.ops + clamps)


def suffixed(variant: str) -> Change:
    """The question followed by one space and a meta-prompt of esr/prompts/suffixes."""
    return lambda trial: replace(trial, prompt=prompts.with_suffix(trial.question, variant, trial.latent.label))


def confined(scope: Scope) -> Change:
    """The steering at some positions alone."""
    return lambda trial: replace(trial, scope=scope)


def ramped(points: Points) -> Change:
    """The steering by a schedule over generated tokens: (token, factor on the boost), straight between two points."""

    def change(trial: Trial) -> Trial:
        ops = (Intervention(op.kind, op.latent, op.value, op.layer, op.sae, schedule=points) for op in trial.ops)
        return replace(trial, ops=tuple(ops))

    return change


def until(marker: int) -> Change:
    """The steering up to the first generated token of this id: behind it, what is added is taken off again, which sums to nothing."""

    def change(trial: Trial) -> Trial:
        off = (
            Intervention(op.kind, op.latent, -op.value, op.layer, op.sae, scope=f"generated after {marker}")
            for op in trial.ops
            if op.kind == "add"
        )
        return replace(trial, ops=(*trial.ops, *off))

    return change


def firsts(members: Iterable[Member], per_latent: int) -> list[Member]:
    """The first so many of each latent."""
    taken: dict[int, int] = {}
    out = []
    for member in members:
        latent = member.trial.latent.index
        taken[latent] = taken.get(latent, 0) + 1
        if taken[latent] <= per_latent:
            out.append(member)
    return out


def held(members: Iterable[Member], against: str) -> list[Member]:
    """The same, compared with another arm."""
    return [replace(member, arm=replace(member.arm, against=against)) for member in members]


def boosted(params: Params, model: str, boost: Callable[[Trial], float]) -> Change:
    """The distractor at another boost; its own threshold stays beside it."""

    def change(trial: Trial) -> Trial:
        value = float(boost(trial))
        others = tuple(op for op in trial.ops if not (op.kind == "add" and op.latent == trial.latent.index))
        return replace(trial, ops=steer_op(params, model, trial.latent.index, value) + others, boost=value)

    return change


@dataclass(frozen=True, slots=True)
class Levels:
    """The boosts of a sweep and the distribution they were laid over."""

    kind: str
    """`absolute`: the same boost for every latent · `relative`: multiples of each latent's own threshold."""
    values: tuple[float, ...]
    """Ascending, without doubles."""
    mean: float
    std: float
    """Of the thresholds, ddof 0."""
    n: int
    """Thresholds behind mean and std."""


def absolute_levels(thresholds: Iterable[float], levels: int, range_std: float) -> Levels:
    """linspace(m − range·σ, m + range·σ), clipped at 0, without doubles."""
    mean, std, n = _distribution(thresholds)
    raw = np.linspace(mean - range_std * std, mean + range_std * std, levels)
    return Levels("absolute", tuple(sorted({round(float(level), 9) for level in np.clip(raw, 0.0, None)})), mean, std, n)


def relative_levels(thresholds: Iterable[float], multiples: Iterable[float]) -> Levels:
    return Levels("relative", tuple(sorted({float(m) for m in multiples})), *_distribution(thresholds))


def ladder(params: Params, members: Sequence[Member], experiment: str, levels: Levels) -> list[Member]:
    """Every trial at every level; the arm is named `absolute-<boost>` or `relative-<multiple>`."""
    out: list[Member] = []
    for order, value in enumerate(levels.values):
        arm = Arm(experiment, f"{levels.kind}-{value:.6g}", levels.kind, value, order, mean=levels.mean, std=levels.std)
        for member in members:
            change = boosted(params, member.model, partial(_boost_at, levels, value))
            out.append(replace(member, arm=arm, trial=change(member.trial)))
    return out


def _boost_at(levels: Levels, value: float, trial: Trial) -> float:
    if levels.kind == "absolute":
        return value
    if trial.threshold is None:
        raise DataError(f"latent {trial.latent.index} has no threshold, so the level {value:g} of it is not defined")
    return value * trial.threshold


def _distribution(thresholds: Iterable[float]) -> tuple[float, float, int]:
    known = np.array(sorted(thresholds), dtype=np.float64)
    if known.size == 0:
        raise DataError("a sweep is laid over the thresholds and none are known; calibrate first")
    return float(known.mean()), float(known.std()), int(known.size)


def _draws(rng: random.Random, questions: Sequence[str], n: int, n_seeds: int) -> list[tuple[str, int]]:
    """n questions without replacement (through as many shuffles as it takes), each with its seed."""
    if not questions:
        raise DataError("a plan needs at least one question")
    out: list[tuple[str, int]] = []
    while len(out) < n:
        shuffled = rng.sample(list(questions), len(questions))
        seeds = [rng.randrange(n_seeds) for _ in shuffled]
        out += zip(shuffled, seeds, strict=True)
    return out[:n]


def _trial(
    params: Params,
    model: str,
    weights: str,
    meaning: str,
    latent: Latent,
    question: str,
    seed: int,
    boost: float,
    search: bool = False,
) -> Trial:
    return Trial(
        model=model,
        weights=weights,
        meaning=meaning,
        prompt=question,
        prompt_format=params.protocol.prompt_format,
        seed=seed,
        sampling=params.sampling(model, search=search),
        ops=steer_op(params, model, latent.index, boost),
        scope=params.protocol.scope,
        question=question,
        latent=latent,
        boost=boost,
    )
