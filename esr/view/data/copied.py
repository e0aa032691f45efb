"""What a bundle holds of each page: addresses in the order of their text, each with what is told there."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from esr.store import Store
from esr.view.data import PAGES, diff, pairs
from esr.view.data.choice import Address
from esr.view.data.latents import indices
from esr.view.data.trial import trials_whole
from esr.view.kept import encoded

Answers: TypeAlias = Iterator[tuple[Address, Any]]
READINGS = 12 << 20
"""Bytes of what was read token by token, as JSON; the readings of further trials are left out, and their pages say so."""
AT_ONCE = 500
"""Trials asked for at a time."""


def key(address: Address) -> str:
    """An address as the index of a bundle and its script write it."""
    return "&".join(f"{name}={value}" for name, value in sorted(address.items()) if value)


def each(name: str, addresses: Callable[[Store, Sequence[str]], Sequence[Address]]) -> Callable[[Store, Sequence[str]], Answers]:
    """One answer after the other."""

    def answers(store: Store, experiments: Sequence[str]) -> Answers:
        ordered = sorted(addresses(store, experiments), key=_order)
        return ((one, PAGES[name](store, one)) for one in ordered)

    return answers


def of_pairs(store: Store, experiments: Sequence[str]) -> Answers:
    """All at once, which are quick to tell and slow to ask for one by one."""
    return iter(sorted(pairs.every(store, experiments), key=lambda one: _order(one[0])))


def _order(address: Address) -> bytes:
    """In which a browser compares texts."""
    return key(address).encode("utf-16-be", "surrogatepass")


def some(name: str, part: str = "") -> Callable[[Store, Sequence[str]], Answers]:
    """One answer of rows that name their experiment, without those of others; `part`: which of its lists holds them."""

    def answers(store: Store, experiments: Sequence[str]) -> Answers:
        told = PAGES[name](store, {})
        kept = [row for row in (told[part] if part else told) if not experiments or row["experiment"] in experiments]
        yield {}, {**told, part: kept} if part else kept

    return answers


def _rows(store: Store, columns: str, experiments: Sequence[str], more: str = "") -> list[dict[str, str]]:
    query = (
        f"select distinct {columns} from summary where judge is not null and (len(?) = 0 or experiment in (select unnest(?))){more}"
    )
    return store.sql(query, [list(experiments), list(experiments)]).to_pylist()  # type: ignore[no-any-return] # of pyarrow, which has no types


def of_studies(store: Store, experiments: Sequence[str]) -> Sequence[Address]:
    return _rows(store, "experiment, model, scale, judge", experiments)


def of_models(store: Store, experiments: Sequence[str]) -> Sequence[Address]:
    return _rows(store, "model, scale, judge", experiments)


def of_arms(store: Store, experiments: Sequence[str]) -> Sequence[Address]:
    return _rows(store, "experiment, model, scale, judge, arm", experiments, " and n_graded > 0")


def of_latents(store: Store, experiments: Sequence[str]) -> Sequence[Address]:
    return [{**one, "latent": str(latent)} for one in of_models(store, experiments) for latent in indices(store, one["model"])]


def of_trials(store: Store, experiments: Sequence[str]) -> Answers:
    """Every trial of the experiments, with what was read of it as long as there is room."""
    room = READINGS
    query = "select distinct trial_id from current_members where len(?) = 0 or experiment in (select unnest(?)) order by 1"
    ids = store.sql(query, [list(experiments), list(experiments)])["trial_id"].to_pylist()
    for start in range(0, len(ids), AT_ONCE):
        found = trials_whole(store, ids[start : start + AT_ONCE])
        for one in ids[start : start + AT_ONCE]:
            told = found[one]
            size = len(encoded(told["readings"])) if told["readings"] else 0
            if size > room:
                told = {**told, "readings": None}
            else:
                room -= size
            yield {"id": one}, told


COPIED: dict[str, Callable[[Store, Sequence[str]], Answers]] = {
    "studies": some("studies"),
    "experiments": each("experiments", lambda _store, _experiments: [{}]),
    "best": some("best"),
    "runs": some("runs", "runs"),
    "closing": each("closing", of_studies),
    "spread": each("spread", of_arms),
    "trials": each("trials", of_studies),
    "texts": each("texts", of_studies),
    "trial": of_trials,
    "pairs": of_pairs,
    "diff": diff.copied,
    "latents": each("latents", of_models),
    "latent": each("latent", of_latents),
}
"""By page, of these experiments (none: all); what is not here, a bundle says it does not hold."""
