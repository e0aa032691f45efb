"""What the store holds, and the replies in which each model corrected itself best: where a reader begins."""

from typing import Any

from esr.errors import EsrError
from esr.experiment import known
from esr.show.plain import plain
from esr.store import Store
from esr.view.data.choice import Address

STUDIES = """
select experiment, model, scale, judge, count(*) as arms, sum(n_planned) as planned, sum(n_graded) as n, sum(n_missing) as missing
from summary where judge is not null group by all order by experiment, model, scale, judge
"""
BEST = """
with steered as (
  select o.*, row_number() over (partition by trial_id, latent, judge order by experiment, arm) as place from outcomes o
  where corrected and boost <> 0 and degraded is not true
), told as (
  select *, trial_id in (select trial_id from activations) as read from steered where place = 1
), ranked as (
  select *, row_number() over (partition by model, scale, judge order by gain desc, read desc, last_score desc, trial_id) as rank,
    row_number() over (partition by model, scale, judge, read order by gain desc, last_score desc, trial_id) as own from told
)
select b.model, b.scale, b.judge, b.experiment, b.arm, b.trial_id, b.latent, b.latent_label, b.question, b.scores, b.gain, r.text, b.read
from ranked b join replies r using (trial_id) where b.rank <= ? or (b.read and b.own <= ?) order by b.model, b.scale, b.judge, b.rank
"""
EACH, READ = 10, 4
"""So many, and at least so many of those that were read token by token."""


def studies(store: Store, _address: Address) -> Any:
    """Every experiment on every model at every scale by every judge."""
    with store.asking() as ask:
        found = ask(STUDIES).to_pylist()
    return plain(found)


def best(store: Store, _address: Address) -> Any:
    """The corrected replies that gained most, of equals those first that were read token by token; a reply of several arms is told once, a degraded one is not among them."""
    with store.asking() as ask:
        return plain(ask(BEST, [EACH, READ]).to_pylist())


def experiments(_store: Store, _address: Address) -> Any:
    """What each experiment says of itself; nothing where the experiments' files are not here. To read them takes a while."""
    try:
        return {name: {"question": one.question, "paper": one.paper} for name, one in known().items()}
    except EsrError:
        return {}
