"""The closing table of an experiment, and its rates latent by latent and question by question, by the house's own counting."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from esr.count import metrics
from esr.count.difficulty import Standardised
from esr.count.metrics import METRICS, Difference, Estimate
from esr.errors import DataError, EsrError
from esr.experiment import Experiment, Selection, Size, find
from esr.params import Params, load
from esr.show import closing_table, tables
from esr.show.closing_table import Line
from esr.show.plain import plain
from esr.show.recorded import VLLM
from esr.store import Store
from esr.view.data.choice import Address, Choice, choice, need

SHOWN = ("first_score_mean", "multi_attempt_rate", "esr_rate", "improvement_rate", "gain_all_mean", "degraded_rate")


def closing(store: Store, address: Address) -> Any:
    """Each arm's n, missing, estimates with intervals and differences in pairs, and the figures that were drawn."""
    with store.asking() as ask:
        chosen = choice(ask, {**address, "experiment": need(address, "experiment")})
        made_up = ask(
            "select coalesce(bool_or(starts_with(weights, 'fake:')), false) as fake from trials where trial_id in "
            "(select trial_id from outcomes where experiment = ? and model = ? and scale = ? and judge = ?)",
            [chosen.experiment, chosen.model, chosen.scale, chosen.judge],
        )["fake"][0].as_py()
    params, experiment = settings(chosen), declaration(chosen.experiment)
    engine = "fake" if made_up else VLLM
    selection = Selection(chosen.experiment, chosen.model, chosen.scale, chosen.judge, experiment.beside, engine)
    outcomes_alone = replace(experiment, tables=(tables.OUTCOMES,))  # the table rests on nothing else
    lines = closing_table.lines(store, params, outcomes_alone, selection)
    methods = {e.method for line in lines if line.counted for e in line.counted.estimates.values() if e.method}
    return plain(
        {
            "experiment": chosen.experiment,
            "question": experiment.question,
            "paper": experiment.paper,
            "shown": list(experiment.shown),
            "made_up": bool(made_up),
            "lines": [_line(line) for line in lines],
            "note": closing_table.note(store, selection, lines),
            "methods": sorted(methods),
            "figures": figures(store, chosen),
            "again": f"python -m flows {chosen.experiment} {chosen.model} --scale {chosen.scale}",
        }
    )


def settings(chosen: Choice) -> Params:
    """Of the model where params.yaml has it, else of the study as a whole."""
    try:
        return load(chosen.model, chosen.scale)
    except EsrError:
        return load(scale=chosen.scale)


def declaration(name: str) -> Experiment:
    """As its file says; of one that no file declares, what holds of any."""
    try:
        return find(name)
    except EsrError:
        return Experiment(
            name=name, question="", paper="", size=lambda _: Size(0, 0), beside=(), tables=(tables.OUTCOMES,), figures=(), endings=()
        )  # fmt: skip


def _line(line: Line) -> dict[str, Any]:
    one = line.counted
    return {
        "arm": line.key,
        "n": one.n if one else 0,
        "missing": line.missing,
        "dose": asdict(line.dose) if line.dose else None,
        "against": one.arm.against if one else "",
        "estimates": {name: estimate(one.estimates[name]) for name in SHOWN} if one else {},
        "differences": {name: difference(d) for name, d in one.differences.items() if name in SHOWN} if one else {},
        "equal": {name: equal(d) for name, d in one.standardised.items()} if one else {},
        "identical": bool(one and one.identical),
        "audited": {name: dict(told) for name, told in one.audited.items()} if one else {},
    }


def estimate(e: Estimate) -> dict[str, Any]:
    """`k` of `n`, and why there is no interval where there is none."""
    return {
        "value": e.value,
        "n": e.n,
        "k": e.k,
        "rate": METRICS[e.metric].proportion,
        "interval": list(e.interval) if e.interval else None,
        "why": e.no_interval,
        "within": list(e.within_latents) if e.within_latents else None,
    }


def difference(d: Difference) -> dict[str, Any]:
    return {
        "value": d.value,
        "n": d.n,
        "rate": METRICS[d.metric].proportion,
        "interval": list(d.interval) if d.interval else None,
        "why": d.no_interval,
        "p": d.p,
    }


def equal(d: Standardised) -> dict[str, Any]:
    """The same at equal first scores."""
    return {
        "value": d.value,
        "rate": METRICS[d.metric].proportion,
        "interval": list(d.interval) if d.interval else None,
        "why": d.no_interval,
    }


def figures(store: Store, chosen: Choice) -> list[str]:
    """Names of the drawn files of the experiment on the model."""
    folder = store.root / "figures"
    scale = "" if chosen.scale == "full" else f"-{chosen.scale}"
    found = sorted(folder.glob(f"{chosen.experiment}*-{chosen.model}{scale}.png")) if folder.is_dir() else []
    return [file.name for file in found if _own(file, chosen, scale)]


def _own(file: Path, chosen: Choice, scale: str) -> bool:
    """Not of `exp01-tiny-plain` for `tiny`, nor of `exp01-a-tiny` where a is part of a model's name."""
    middle = file.stem.removeprefix(chosen.experiment).removesuffix(f"-{chosen.model}{scale}")
    return middle == "" or middle.startswith("-")


OF_ARM = """
select latent, latent_label, question, seed, first_score, last_score, multi, corrected, degraded, gain, n_attempts from outcomes
where experiment = ? and arm = ? and model = ? and scale = ? and judge = ? order by latent, question, seed
"""


def spread(store: Store, address: Address) -> Any:
    """Rates of one arm by latent and by question.

    Of a question the interval is of other latents. Of one latent it cannot be: there it is of other seeds and questions under this latent.
    """
    with store.asking() as ask:
        chosen = choice(ask, {**address, "experiment": need(address, "experiment")})
        arm = need(address, "arm")
        rows = ask(OF_ARM, [chosen.experiment, arm, chosen.model, chosen.scale, chosen.judge]).to_pandas()
    if rows.empty:
        raise DataError(f"nothing of {chosen.experiment}/{arm} is graded by {chosen.judge or 'any judge'}")
    protocol = settings(chosen).protocol
    frame = metrics.outcomes_frame(rows, exclude_degraded=protocol.exclude_degraded)
    labels = {
        int(key): label if isinstance(label, str) else "" for key, label in zip(rows["latent"], rows["latent_label"], strict=True)
    }
    groups = {int(str(key)): some for key, some in frame.groupby("latent", sort=True)}
    by_latent = [{"latent": key, "label": labels[key], **_rates(some, protocol.confidence)} for key, some in groups.items()]
    by_question = [
        {"question": str(key), **_rates(some, protocol.confidence)} for key, some in frame.groupby("question", sort=True)
    ]
    return plain({"confidence": protocol.confidence, "by_latent": by_latent, "by_question": by_question})


def _rates(rows: pd.DataFrame, confidence: float) -> dict[str, Any]:
    found = metrics.estimates(rows, confidence=confidence)
    return {name: estimate(found[name]) for name in ("multi_attempt_rate", "esr_rate", "first_score_mean")}
