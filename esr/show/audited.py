"""Rates corrected by people's labels, of the arms that were audited, beside the judge's own and never in their place."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from esr.count import audit
from esr.experiment import Selection
from esr.show.tables import where
from esr.show.words import NAMES, NOTHING
from esr.store import Store

Told = Mapping[str, Any]
"""An `esr.count.audit.Audited` as JSON holds it, with experiment and arm."""

FRAME = """
with labelled as (
    select sheet, experiment, arm, max(drawn_at) as newest_at from audited_rates where {where} and n_labelled > 0 group by all
), newest as (
    select * from labelled qualify row_number() over (partition by experiment, arm order by newest_at desc, sheet) = 1
)
select s.experiment, s.arm, s.trial_id, s.latent, s.question, s.stratum, s.multi, s.corrected, a.label
from audit_sheets s semi join newest using (sheet, experiment, arm) left join audited a using (sheet, arm, trial_id, latent)
order by s.experiment, s.arm, s.trial_id, s.latent
"""
"""Of each arm, the trials of the newest sheet that has a label."""


def read(store: Store, chosen: Selection, confidence: float) -> list[dict[str, Any]]:
    """What labels say of each rate of each audited arm; empty where nobody has labelled."""
    condition, asked = where(chosen)
    frame = store.sql(FRAME.format(where=condition), asked).to_pandas()
    frame["label"] = frame["label"].where(frame["label"].notna(), None)
    return [
        {"experiment": experiment, "arm": arm, **asdict(found)}
        for (experiment, arm), rows in frame.groupby(["experiment", "arm"], sort=True)
        for found in audit.audited(rows, confidence=confidence).values()
    ]


def of(told: Sequence[Told], experiment: str, arm: str) -> dict[str, Told]:
    """Those of one arm, by metric."""
    return {str(one["metric"]): one for one in told if (one["experiment"], one["arm"]) == (experiment, arm)}


def share(found: Told) -> str:
    """`11.2 % [8.1, 15.3]`, or the reason why there is none."""
    if found["value"] is None:
        return f"{NOTHING} ({found['no_interval']})"
    span = found["interval"]
    return f"{100 * found['value']:.1f} %" + (
        f" [{100 * span[0]:.1f}, {100 * span[1]:.1f}]" if span else f" ({found['no_interval']})"
    )


HEADER = ("arm", "rate", "labels", "judge", "corrected", "by PPI++", "sensitivity", "specificity")


def cells(one: Told) -> list[str]:
    """A line an arm and rate."""
    rates = (one["post_stratified"], one["ppi"], one["sensitivity"], one["specificity"])
    name = f"{one['experiment']}/{one['arm']}"
    return [
        name,
        NAMES[one["metric"]],
        f"{one['labelled']:,} of {one['trials']:,}",
        f"{100 * one['judge']:.1f} %",
        *map(share, rates),
    ]


NOTE = (
    "Corrected: people's labels of a stratified sheet, weighted by the trials of each stratum; intervals hold the sheet's chance and the "
    "latents' together. docs/audit.md says how."
)
