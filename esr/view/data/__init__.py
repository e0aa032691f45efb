"""The data of every page, by the page's name."""

from collections.abc import Callable
from typing import Any, TypeAlias

from esr.store import Store
from esr.view.data import closing, diff, latents, pairs, runs, studies, trial, trials
from esr.view.data.choice import Address

Told: TypeAlias = Callable[[Store, Address], Any]
"""From the store and what the address says to what JSON can say."""

PAGES: dict[str, Told] = {
    "studies": studies.studies,
    "experiments": studies.experiments,
    "best": studies.best,
    "runs": runs.runs,
    "diff": diff.diff,
    "closing": closing.closing,
    "spread": closing.spread,
    "trials": trials.trials,
    "search": trials.search,
    "texts": trials.texts,
    "trial": trial.trial,
    "pairs": pairs.pairs,
    "latents": latents.latents,
    "latent": latents.latent,
}
"""A page may ask for several of them; `/api/NAME?…` gives each."""
