"""From counted arms to what is drawn: values with bounds, their method in words, the paper's values."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from esr.show import words
from esr.show.counted import Counted
from esr.show.paper import reported
from esr.types import Arm

TITLES = {
    "first_score_mean": "First-attempt score",
    "multi_attempt_rate": "Multi-attempt rate (%)",
    "improvement_rate": "Improvement rate (%)",
    "esr_rate": "ESR rate (%)",
}


class Drawn(NamedTuple):
    """One value in the units of its axis: points of 100 for scores, per cent for rates."""

    value: float | None
    bounds: tuple[float, float] | None
    k: int | None
    n: int


def methods(counted: Iterable[Counted], metrics: Sequence[str]) -> list[str]:
    """Of every interval that is drawn of these arms."""
    return [one.estimates[metric].method for one in counted for metric in metrics]


def drawn(one: Counted, metric: str) -> Drawn:
    """A value in the units of its axis with the interval that is told of it."""
    e, by = one.estimates[metric], words.scale(metric)
    span = e.interval
    return Drawn(None if e.value is None else e.value * by, (span.low * by, span.high * by) if span else None, e.k, e.n)


def paper(arm: Arm, model: str, metric: str) -> float | None:
    """What the paper reports, in the units of the axis; None: nothing, or not for this model."""
    value = reported(arm, model, metric)
    return None if value is None else value * words.scale(metric)


def as_json(one: Counted, metrics: list[str], model: str) -> dict[str, Any]:
    """Every number drawn of an arm, with its method and the paper's value."""
    out: dict[str, Any] = {
        "experiment": one.arm.experiment,
        "arm": one.name,
        "planned": one.planned,
        "missing": one.missing,
        "n": one.n,
    }
    for metric in metrics:
        d, held = drawn(one, metric), one.differences.get(metric)
        row: dict[str, Any] = {"value": d.value, "bounds": d.bounds, "n": d.n, "k": d.k}
        e = one.estimates[metric]
        row |= {"method": e.method, "no_interval": e.no_interval, "latents": e.latents, "n_effective": e.n_effective}
        row["within_latents"] = e.within_latents
        row["paper"] = paper(one.arm, model, metric)
        if held is not None:
            told = {"value": held.value, "bounds": held.interval, "pairs": held.n, "p": held.p}
            row["difference"] = told | {"method": held.method, "no_interval": held.no_interval}
        if (alike := one.standardised.get(metric)) is not None:
            told = {"value": alike.value, "bounds": alike.interval, "covered": alike.covered, "p": alike.p}
            row["standardised"] = told | {"method": alike.method, "no_interval": alike.no_interval}
        if metric in one.audited:
            row["audited"] = dict(one.audited[metric])
        out[metric] = row
    return out
