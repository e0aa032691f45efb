"""Numbers as a person reads them: one form for values, intervals and differences in tables, captions and reports."""

from esr.count.metrics import METRICS, Difference, Estimate
from esr.count.statistics import Bounds

NAMES = {
    "first_score_mean": "first-attempt score",
    "multi_attempt_rate": "multi-attempt rate",
    "improvement_rate": "improvement rate",
    "esr_rate": "ESR rate",
}
NOTHING = "–"


def scale(metric: str) -> float:
    """Rates are told in per cent, everything else as it is."""
    return 100.0 if METRICS[metric].proportion else 1.0


def bounds(e: Estimate) -> Bounds | None:
    """The interval that is told of an estimate."""
    return e.wilson if METRICS[e.metric].proportion else e.bootstrap


def value(metric: str, found: float | None) -> str:
    """`17.1 %`, `29.2`"""
    if found is None:
        return NOTHING
    return f"{scale(metric) * found:.1f}" + (" %" if METRICS[metric].proportion else "")


def estimate(e: Estimate | None) -> str:
    """`17.1 % [15.0, 19.4]`"""
    if e is None or e.value is None:
        return NOTHING
    span, by = bounds(e), scale(e.metric)
    return value(e.metric, e.value) + (f" [{by * span.low:.1f}, {by * span.high:.1f}]" if span else "")


def difference(d: Difference | None) -> str:
    """`-11.3 [-15.2, -7.6]`, in points of 100; empty where there are no pairs."""
    if d is None or d.value is None or d.n == 0:
        return ""
    by = scale(d.metric)
    return f"{by * d.value:+.1f}" + (f" [{by * d.bootstrap.low:+.1f}, {by * d.bootstrap.high:+.1f}]" if d.bootstrap else "")


def method(confidence: float, draws: int) -> str:
    """How the drawn intervals were made."""
    return (
        f"Bars: {100 * confidence:g} % intervals, Wilson for rates (trials taken as independent), percentiles of {draws:,} draws of "
        "latents for scores and differences."
    )


NOTE = (
    "In brackets: 95 % intervals, Wilson for rates and percentiles over resampled latents for scores and for differences, "
    "which are taken over pairs of the same latent, question and seed."
)
