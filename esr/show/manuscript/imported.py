"""Imported results as exports: no run wrote any, and figures and numbers are made of exports alone."""

from collections.abc import Mapping

from esr import experiment as experiments
from esr.errors import DataError
from esr.experiment import Experiment, Selection
from esr.params import Params
from esr.show import recorded
from esr.show.manuscript.exported import IMPORTED
from esr.show.moment import moment
from esr.show.recorded import Recorded
from esr.store import Store

THERE = """
select distinct experiment, model, judge from outcomes o
where scale = 'full' and exists (select 1 from provenance p where p.relation = 'trials' and p.id = o.trial_id)
order by all
"""


def export(store: Store, params: Params) -> dict[str, str]:
    """Every experiment of the authors' files, by model and judge, below the store's folder for them; what could not be exported and why."""
    known, left = experiments.known(), {}
    for row in store.sql(THERE).to_pylist():
        if row["experiment"] not in known:
            continue
        chosen = known[row["experiment"]].selection(row["model"], "full", row["judge"])
        try:
            _export(store, params, known[row["experiment"]], chosen)
        except DataError as error:
            left[f"{chosen.experiment} on {chosen.model}, imported, by {chosen.judge}"] = str(error)
    return left


def _export(store: Store, params: Params, experiment: Experiment, chosen: Selection) -> None:
    with moment(store) as now:
        found = recorded.recorded(now, params, experiment, chosen)
    told: Mapping[str, object] = {**found.about, "imported": True}
    place = recorded.place(store.root, params, chosen)
    recorded.write(Recorded(found.tables, dict(told)), store.root / IMPORTED / place.parent.name / place.name)
