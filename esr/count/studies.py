"""Simulated studies whose truth is known: latents with rates of their own, trials within them, an arm beside a baseline.

A latent's rate is a quantile of the design's distribution of rates, so that every shape (beta, logit-normal, two kinds of latents,
most latents at 0) takes the same route, and an arm in which latents react differently while nothing changes on average is a second
draw from the same distribution. Arrays are [studies, trials].
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
QUESTIONS = 38


@dataclass(frozen=True, slots=True)
class Rates:
    """How the latents' rates of a second attempt are distributed; `mean` is their mean."""

    shape: str
    """`beta`, `logit-normal`, `two-point`, `zero-or-beta`, `gamma`, `log-normal` or `alike`."""
    mean: float
    spread: float = 0.1
    """Correlation of two trials of one latent (beta), standard deviation of the logits (of the logarithms), coefficient of variation
    (gamma), or share of latents that restart at all."""

    def quantiles(self) -> Callable[[Floats], Floats]:
        """From uniforms to rates."""
        mean, spread = self.mean, self.spread
        if self.shape == "alike":
            return lambda u: np.full_like(u, mean)
        if self.shape == "two-point":  # a share of latents at a high rate, the others at a tenth of it
            high = mean / (spread + 0.1 * (1 - spread))
            return lambda u: np.where(u > 1 - spread, high, 0.1 * high)
        if self.shape == "logit-normal":
            return _shifted(mean, lambda u, at: special.expit(at + spread * special.ndtri(u)))
        if self.shape == "log-normal":  # heavy above, up to 1
            return _shifted(mean, lambda u, at: np.minimum(np.exp(at + spread * special.ndtri(u)), 1.0))
        if self.shape == "gamma":
            return _shifted(mean, lambda u, at: np.minimum(np.exp(at) * special.gammaincinv(spread**-2, u), 1.0))
        beta, share = (mean, 1.0) if self.shape == "beta" else (mean / spread, spread)
        size = (1 - spread) / spread if self.shape == "beta" else 3.0
        at = np.concatenate(
            [np.geomspace(1e-9, 1e-2, 400), np.linspace(1e-2, 0.99, 3_000)[1:-1], 1 - np.geomspace(1e-2, 1e-9, 400)]
        )
        table = stats.beta.ppf(at, beta * size, (1 - beta) * size)
        return lambda u: np.where(u > 1 - share, np.interp((u - 1 + share) / share, at, table), 0.0)


def _shifted(mean: float, rates: Callable[[Floats, float], Floats]) -> Callable[[Floats], Floats]:
    """The rates at the place where their mean is `mean`."""
    u = (np.arange(20_000) + 0.5) / 20_000
    low, high = -15.0, 15.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rates(u, middle).mean() < mean else (low, middle)
    return lambda u: np.asarray(rates(u, low))


@dataclass(frozen=True, slots=True)
class Design:
    """One kind of study."""

    name: str
    latents: int
    trials: int
    """Per latent; the mean where unbalanced."""
    rates: Rates
    questions: float = 0.0
    """Standard deviation of the questions' logits; questions are drawn anew with each study."""
    unbalanced: bool = False
    """Trials per latent from 2 to five times the mean."""
    missing: float = 0.0
    """Share of trials without a grade."""
    sizes: float = 0.0
    """Standard deviation of the latents' logarithms of how much a second attempt changes the score."""
    own: bool = False
    """Beyond the six that the intervals were first found wanting with."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What the arm does to a latent's rate."""

    name: str
    factor: float = 1.0
    agreement: float = 1.0
    """Correlation between a latent's standing in the baseline and in the arm; below 1, latents react differently."""
    null: bool = True
    """Nothing changes on average."""


EFFECTS = (
    Effect("A/A"),
    Effect("A/A, reacting", agreement=0.3),
    Effect("halved", 0.5, null=False),
    Effect("halved, reacting", 0.5, 0.5, False),
)


class Trials(NamedTuple):
    """One arm of many studies: what is recorded of each trial."""

    first_score: Floats
    multi: Floats
    corrected: Floats
    gain: Floats
    degraded: Floats
    n_attempts: Floats


@dataclass(frozen=True, slots=True)
class Plan:
    """Which latent and which question each trial has; the same in all studies of a design."""

    latent: Ints
    question: Ints
    latents: int = field(default=0)


def plan(design: Design, rng: np.random.Generator) -> Plan:
    sizes = np.full(design.latents, design.trials)
    if design.unbalanced:
        sizes = np.clip(rng.gamma(1.0, design.trials, design.latents).astype(int), 2, 5 * design.trials)
    latent = np.repeat(np.arange(design.latents), sizes)
    # each latent goes through the questions from a place of its own
    question = np.concatenate([rng.permutation(np.resize(rng.permutation(QUESTIONS), size)) for size in sizes])
    graded = rng.random(latent.size) >= design.missing
    return Plan(latent[graded], question[graded], design.latents)


class Nature(NamedTuple):
    """What is true of the latents of many studies, [studies, latents]."""

    rate: Floats
    better: Floats
    """Chance that a second attempt is better."""
    level: Floats
    """Mean first score."""
    stuck: Floats
    """Chance of a degraded reply."""
    size: Floats
    """Mean size of a change of score, before the scale cuts it."""


def nature(u: Floats, v: Floats, quantiles: Callable[[Floats], Floats], factor: float, sizes: float) -> Nature:
    """From two uniforms a latent: its rate; everything else, tied to the rate by half."""
    z = 0.5 * special.ndtri(u) + np.sqrt(0.75) * special.ndtri(v)
    return Nature(
        factor * quantiles(u),
        special.expit(0.5 + 0.7 * z),
        30 + 8 * special.ndtri(v),
        0.1 * np.exp(0.5 * special.ndtri(v) - 0.125).clip(0, 5),
        25.0 * np.exp(sizes * special.ndtri(v) - sizes**2 / 2),
    )


def observed(true: Nature, plan: Plan, shift: Floats, rng: np.random.Generator) -> Trials:
    """Trials of every study; `shift` moves each trial's logit by its question."""
    rate = np.clip(true.rate[:, plan.latent], 0.0, 1.0)
    if shift.any():
        rate = _moved(rate, shift)
    shape = rate.shape
    multi = rng.random(shape) < rate
    better = multi & (rng.random(shape) < true.better[:, plan.latent])
    size = np.minimum(rng.exponential(true.size[:, plan.latent]), LARGEST)
    gain = np.where(better, size, -0.4 * size) * multi
    first = true.level[:, plan.latent] + rng.normal(0, 20, shape) + 5 * shift
    stuck = rng.random(shape) < true.stuck[:, plan.latent]
    attempts = np.asarray(1.0 + multi * rng.geometric(0.7, shape), dtype=np.float64)
    return Trials(first, multi.astype(float), better.astype(float), gain, stuck.astype(float), attempts)


def _moved(rate: Floats, shift: Floats) -> Floats:
    """Rates whose logits are moved by their questions; 0 and 1 stay."""
    with np.errstate(divide="ignore"):
        out: Floats = special.expit(special.logit(rate) + shift)
    return out


LARGEST = 90.0
"""Change of score."""


def truth(design: Design, factor: float, rng: np.random.Generator, n: int = 400_000) -> dict[str, float]:
    """Every metric, over all latents and questions that there could be."""
    u, v = (rng.permutation((np.arange(n) + 0.5) / n) for _ in range(2))
    true = nature(u, v, design.rates.quantiles(), factor, design.sizes)
    rate = np.clip(true.rate, 0.0, 1.0)
    if design.questions:
        rate = _moved(rate, design.questions * special.ndtri(rng.permutation((np.arange(n) + 0.5) / n)))
    multi, corrected = float(rate.mean()), float((rate * true.better).mean())
    size = true.size * -np.expm1(-LARGEST / true.size)
    gain = float((rate * size * (1.4 * true.better - 0.4)).mean())
    return {
        "first_score_mean": 30.0,
        "multi_attempt_rate": multi,
        "esr_rate": corrected,
        "improvement_rate": corrected / multi,
        "gain_all_mean": gain,
        "gain_multi_mean": gain / multi,
        "degraded_rate": float(true.stuck.mean()),
        "attempts_mean": 1 + multi / 0.7,
    }


def arms(
    design: Design, effect: Effect, plan: Plan, quantiles: Callable[[Floats], Floats], studies: int, rng: np.random.Generator
) -> tuple[Trials, Trials]:
    """The arm and its baseline, over the same latents, questions and seeds."""
    shape = (studies, design.latents)
    z, w = rng.normal(size=shape), rng.random(shape)
    other = effect.agreement * z + np.sqrt(1 - effect.agreement**2) * rng.normal(size=shape)
    shift = design.questions * rng.normal(size=(studies, QUESTIONS))[:, plan.question]
    baseline, arm = (
        nature(special.ndtr(x), w, quantiles, factor, design.sizes) for x, factor in ((z, 1.0), (other, effect.factor))
    )
    return observed(arm, plan, shift, rng), observed(baseline, plan, shift, rng)


DRAWN = 24
"""Designs by chance."""


def drawn(seed: int = 7) -> list[Design]:
    """Designs that nobody chose: latents, trials, shape, mean, spread and all the rest by lot. Nothing was fitted to them."""
    rng = np.random.default_rng(seed)
    spreads = {
        "beta": (0.02, 0.4),
        "logit-normal": (0.3, 2.0),
        "two-point": (0.1, 0.5),
        "zero-or-beta": (0.15, 0.8),
        "gamma": (0.3, 2.0),
        "log-normal": (0.3, 1.5),
    }
    found = []
    for number in range(DRAWN):
        shape = str(rng.choice(list(spreads)))
        latents, trials = int(rng.choice([10, 20, 48, 100, 500])), int(rng.choice([5, 10, 24]))
        mean, spread = float(rng.choice([0.02, 0.05, 0.1, 0.2, 0.4])), float(rng.uniform(*spreads[shape]))
        if shape in ("two-point", "zero-or-beta"):
            spread = max(spread, 1.5 * mean)
        questions, missing, sizes = (float(rng.choice(some)) for some in ([0, 0, 0.5, 1], [0, 0, 0.1, 0.3], [0, 0.5, 1]))
        unbalanced = bool(rng.random() < 0.3)
        marks = [mark for mark, has in zip("qumg", (questions, unbalanced, missing, sizes), strict=True) if has]
        name = f"{number + 1} {shape} {latents}x{trials} {mean:g}".replace("0.", ".") + f" {''.join(marks)}".rstrip()
        found.append(Design(name, latents, trials, Rates(shape, mean, spread), questions, unbalanced, missing, sizes))
    return found


def designs() -> list[Design]:
    """The six, and others that differ in what the first six leave out."""
    own = [
        Design("logit-normal 48x24 .1", 48, 24, Rates("logit-normal", 0.1, 1.5)),
        Design("logit-normal 10x10 .1", 10, 10, Rates("logit-normal", 0.1, 1.5)),
        Design("two kinds 48x24 .1", 48, 24, Rates("two-point", 0.1, 0.15)),
        Design("two kinds 20x10 .1", 20, 10, Rates("two-point", 0.1, 0.15)),
        Design("most at 0 48x24 .1", 48, 24, Rates("zero-or-beta", 0.1, 0.25)),
        Design("most at 0 20x24 .1", 20, 24, Rates("zero-or-beta", 0.1, 0.25)),
        Design("most at 0 10x10 .1", 10, 10, Rates("zero-or-beta", 0.1, 0.3)),
        Design("few hot 48x24 .03", 48, 24, Rates("beta", 0.03, 0.5)),
        Design("alike 48x24 .1", 48, 24, Rates("alike", 0.1)),
        Design("alike 10x10 .02", 10, 10, Rates("alike", 0.02)),
        Design("near 1 48x24 .95", 48, 24, Rates("beta", 0.95, 0.1)),
        Design("half 10x24 .5", 10, 24, Rates("beta", 0.5, 0.3)),
        Design("questions vary 48x24 .17", 48, 24, Rates("beta", 0.17, 0.26), questions=1.0),
        Design("questions vary 100x38 .1", 100, 38, Rates("beta", 0.1, 0.1), questions=1.0),
        Design("questions vary 10x38 .2", 10, 38, Rates("beta", 0.2, 0.1), questions=1.0),
        Design("unbalanced 48x24 .1", 48, 24, Rates("beta", 0.1, 0.15), unbalanced=True),
        Design("unbalanced 12x20 .1", 12, 20, Rates("beta", 0.1, 0.15), unbalanced=True),
        Design("500x5 .04 lone hot", 500, 5, Rates("beta", 0.04, 0.4)),
    ]
    six = [
        Design("48x24 .1", 48, 24, Rates("beta", 0.1, 0.1)),
        Design("10x10 .1", 10, 10, Rates("beta", 0.1, 0.1)),
        Design("48x24 .01", 48, 24, Rates("beta", 0.01, 0.1)),
        Design("10x10 .01", 10, 10, Rates("beta", 0.01, 0.1)),
        Design("as tiny", 48, 24, Rates("beta", 0.17, 0.26)),
        Design("500x5 .1", 500, 5, Rates("beta", 0.1, 0.1)),
    ]
    return six + [replace(design, own=True) for design in own]
