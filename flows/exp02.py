"""Experiment 2: how does self-correction change with the strength of steering? (§3.2, figure 3)"""

from prefect import flow

from esr.study.plan import absolute_levels, ladder, relative_levels
from esr.types import Arm
from flows import path


@flow(name="exp02", task_runner=path.threads())
def exp02(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Some of experiment 1's latents are steered over a ladder of boosts: the same absolute levels for all, spread over the
    distribution of thresholds as the authors did, and multiples of each latent's own threshold. Question and seed of a latent's
    trials are the same on every rung."""
    with path.study("exp02", model, scale, judge) as study:
        exp, thresholds = study.params.exp02, path.thresholds(study)
        some = path.planned(study, thresholds[: exp.latents], Arm("exp02", "threshold"), exp.trials_per_latent)
        boosts = [row["threshold"] for row in thresholds]
        levels = {
            "absolute": absolute_levels(boosts, exp.levels, exp.range_std),
            "relative": relative_levels(boosts, exp.relative),
        }
        rungs = [ladder(study.params, some, "exp02", levels[kind]) for kind in exp.kinds]
        path.carry_out(study, [member for rung in rungs for member in rung])
