"""The steps that DVC runs: examples, then mixtures with their recipes, then checkpoints."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esr.errors import DataError
from esr.study.choose import Baseline, candidates
from esr.study.plan import stream
from esr.tune import mixtures, recipe, rows, writers
from esr.tune.places import Places
from esr.tune.settings import Tuning
from esr.tune.split import split, wishes
from esr.whole import place

if TYPE_CHECKING:
    from esr.study.study import Study

log = logging.getLogger(__name__)


def examples(study: "Study", places: Places) -> None:
    """Written by whom params name, with what was held out beside them."""
    params = study.params
    tuning = params.of(Tuning)
    found = split(tuning, candidates(params, study.labels, params.of(Baseline).latents))
    off, on = wishes(found, tuning.masked, tuning.normal, stream(params, "examples"))
    written = writers.writer(study, tuning).write([*off, *on])
    some = [example for example in written if example is not None]
    if len(some) < len(written):
        log.warning("%d of %d examples could not be written and are left out", len(written) - len(some), len(written))
    _lines(places.examples, (example.as_dict() for example in some))
    told = found.as_dict() | {"not_written": len(written) - len(some)}
    place(places.split, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def mixed(study: "Study", places: Places) -> None:
    """Each ratio's rows, and a recipe for each training."""
    tuning = study.params.of(Tuning)
    if not places.examples.is_file():
        raise DataError(f"no {places.relative(places.examples)}; `python -m esr.tune examples {places.model}` writes it")
    written = rows.examples([json.loads(line) for line in places.examples.read_text(encoding="utf-8").splitlines()])
    masked, normal = ([one for one in written if one.masked is kind] for kind in (True, False))
    if tuning.mixing == "authors":
        made = mixtures.authors(masked, normal, tuning.ratios)
    else:
        made = mixtures.nested(masked, normal, tuning.ratios, tuning.total, stream(study.params, "mixtures"))
    if tuning.steered:
        _directions(study, places, masked)
    family = study.spec.family
    for ratio, some in made.items():
        _lines(places.mixture(ratio), (rows.as_json(rows.row(example, family)) for example in some))
    for course in tuning.courses:
        place(places.recipe(course), recipe.text(recipe.recipe(tuning, study.spec, places, course)))


def _directions(study: "Study", places: Places, masked: Sequence[rows.Example]) -> None:
    """What is steered with while some checkpoints are trained, and never in an evaluation."""
    from esr.sae import open_sae
    from esr.tune import live

    params, tuning = study.params, study.params.of(Tuning)
    places.directions.parent.mkdir(parents=True, exist_ok=True)
    if tuning.live.along == "subjects":
        _of_subjects(study, places, masked)
        return
    steerable = candidates(params, study.labels, params.of(Baseline).latents)
    sae = open_sae(params, study.spec.sae)
    live.write(places.directions, sae, steerable, tuning.live.directions, stream(params, "live"))


def _of_subjects(study: "Study", places: Places, masked: Sequence[rows.Example]) -> None:
    """The model's own directions of what passages are about, none of which shares a word with a label that may be steered with."""
    import torch
    from transformers import AutoTokenizer

    from esr.params import source
    from esr.study import along
    from esr.tune import live

    name = along.set_of(study.params, study.model)
    made, wanted = along.directions(study, name), {one.subject for one in masked}
    if lacking := sorted(wanted - set(made.names)):
        raise DataError(
            f"passages are about {lacking[0]!r}, of which directions.{name} has no direction; exp04.live.along: latents needs none"
        )
    of_layer = made.vectors[made.layers.index(study.spec.steer_layer)]
    vectors = {subject: torch.from_numpy(of_layer[i]) for i, subject in enumerate(made.names) if subject in wanted}
    auto: Any = AutoTokenizer
    where, revision = source(study.spec.hub, study.spec.revision)
    tokenizer = auto.from_pretrained(where, **revision)
    read = ((rows.tokens(rows.row(one, study.spec.family)[:1], tokenizer)[0], one.subject) for one in masked)
    live.write_subjects(places.directions, vectors, read)


def _lines(path: Path, found: Iterable[Mapping[str, Any]]) -> None:
    place(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
