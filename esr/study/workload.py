"""How much an experiment asks for, counted from params alone: trials, replies of the search, judge calls, tokens at most."""

from dataclasses import dataclass

from esr.params import Params
from esr.prompts import discovery


@dataclass(frozen=True, slots=True)
class Workload:
    latents: int
    search: int
    """Replies that calibrating them takes at most; each is graded once."""
    baseline: int
    """Trials of experiment 1 that this one replays, or its own."""
    discovery: int
    """Unsteered replies that detectors are found in; not graded."""
    arms: int
    own: int
    """Trials of its own arms at most; some may be another experiment's, and then they are there already."""
    tokens: int
    """Generated at most."""

    @property
    def trials(self) -> int:
        return self.baseline + self.own

    @property
    def replies(self) -> int:
        return self.search + self.discovery + self.trials

    @property
    def judge_calls(self) -> int:
        return self.search + self.trials


def workload(params: Params, model: str, experiment: str) -> Workload:
    p, n = params.protocol, params.exp01.latents
    search = n * (p.search_steps * p.samples_per_step + p.verify_samples)
    baseline = 0 if experiment == "exp02" else n * params.exp01.trials_per_latent
    e2, e10 = params.exp02, params.exp10
    rungs = sum({"absolute": e2.levels, "relative": len(e2.relative)}[kind] for kind in e2.kinds)
    arms = {
        "exp01": 0,
        "exp02": rungs,
        "exp03": 1,
        "exp05": len(params.exp05.variants),
        "exp08": 1,
        "exp10": e10.sets * len(e10.matchings),
    }[experiment]
    each = min(e2.latents, n) * e2.trials_per_latent if experiment == "exp02" else baseline
    found = len(discovery()) * params.exp03.replies_per_question if experiment in ("exp03", "exp10") else 0
    tokens = search * p.search_max_tokens + (found + baseline + arms * each) * p.max_tokens
    return Workload(n, search, baseline, found, arms, arms * each, tokens)
