"""Numbers as a person reads them: one form for values, intervals and differences in tables, captions and reports."""

from collections.abc import Iterable

from esr.count.difficulty import Standardised
from esr.count.metrics import METRICS, Difference, Estimate

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


def value(metric: str, found: float | None) -> str:
    """`17.1 %`, `29.2`"""
    if found is None:
        return NOTHING
    return f"{scale(metric) * found:.1f}" + (" %" if METRICS[metric].proportion else "")


def estimate(e: Estimate | None) -> str:
    """`17.1 % [15.0, 19.4]`"""
    if e is None or e.value is None:
        return NOTHING
    span, by = e.interval, scale(e.metric)
    return value(e.metric, e.value) + (f" [{by * span.low:.1f}, {by * span.high:.1f}]" if span else f" ({e.no_interval})")


def difference(d: Difference | None) -> str:
    """`-11.3 [-15.2, -7.6]`, in points of 100; empty where there are no pairs."""
    if d is None or d.value is None or d.n == 0:
        return ""
    by = scale(d.metric)
    span = d.interval
    return f"{by * d.value:+.1f}" + (f" [{by * span.low:+.1f}, {by * span.high:+.1f}]" if span else f" ({d.no_interval})")


def standardised(d: Standardised | None) -> str:
    """The same at equal first scores; a dash where those hardly overlap."""
    return NOTHING if d is not None and d.n and d.value is None else difference(d)


def method(confidence: float, methods: Iterable[str]) -> str:
    """How the drawn intervals came about."""
    told = sorted({method for method in methods if method})
    return f"Bars: {100 * confidence:g} % intervals ({'; '.join(told) or 'none'}): what other latents of the same kind would show."


NOTE = (
    "In brackets: 95 % intervals, of what other latents (and questions, where they differ) of the same kind would show; differences are "
    "taken over pairs of the same latent, question and seed. docs/statistics.md says how, and how well they hold."
)
EQUAL = (
    "Equal score: the same difference over strata of the first score, each counted as often as the baseline's replies fall into it; "
    f"`{NOTHING}` where the two hardly overlap."
)
