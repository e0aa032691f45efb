"""From counted arms to what is drawn: values with bounds, their method in words, the paper's values."""

from typing import Any, NamedTuple

from esr.count.metrics import METRICS
from esr.show.paper import reported
from esr.show.recorded import Arm

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


def drawn(arm: Arm, metric: str) -> Drawn:
    """Rates with Wilson's interval, means with percentiles over resampled latents."""
    e = arm.estimates[metric]
    scale = 100.0 if METRICS[metric].proportion else 1.0
    bounds = e.wilson if METRICS[metric].proportion else e.bootstrap
    scaled = (bounds[0] * scale, bounds[1] * scale) if bounds else None
    return Drawn(None if e.value is None else e.value * scale, scaled, e.k, e.n)


def method(confidence: float, draws: int) -> str:
    return (
        f"Bars: {100 * confidence:g} % intervals, Wilson for rates (trials taken as independent), percentiles of {draws:,} draws of "
        "latents for scores and differences."
    )


def paper(experiment: str, model: str, arm: str, metric: str) -> float | None:
    """What the paper reports, in the units of the axis; None: nothing, or not for this model."""
    value = reported(experiment, model, arm, metric)
    return None if value is None else value * (100.0 if METRICS[metric].proportion else 1.0)


def as_json(arm: Arm, metrics: list[str], model: str) -> dict[str, Any]:
    """Every number drawn of an arm, with its method and the paper's value."""
    out: dict[str, Any] = {
        "experiment": arm.experiment,
        "arm": arm.name,
        "planned": arm.planned,
        "missing": arm.missing,
        "n": arm.n,
    }
    for metric in metrics:
        d, held = drawn(arm, metric), arm.differences.get(metric)
        row: dict[str, Any] = {"value": d.value, "bounds": d.bounds, "n": d.n, "k": d.k}
        row["interval"] = "wilson" if METRICS[metric].proportion else "bootstrap over latents"
        row["bootstrap"] = arm.estimates[metric].bootstrap
        row["latents"] = arm.estimates[metric].clusters
        row["paper"] = paper(arm.experiment, model, arm.name, metric)
        if held is not None:
            row["difference"] = {"value": held.value, "bounds": held.bootstrap, "pairs": held.n, "mcnemar": held.mcnemar}
        out[metric] = row
    return out
