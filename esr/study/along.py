"""Directions that are no latents: made of contrasted texts or read from a file, and a study that is steered along them.

    made = directions(study, "tiny-subjects")               # Made: vectors, names, the stream's length, their hash
    there = along(study, made)                              # the same study with these in the SAE's place
    calibrate.thresholds(there, there.labels)               # and every step as before

A direction of texts: the mean stream over its subject's texts, each text counting once, minus the mean over all other subjects'; at
length 1, so that a boost is the length of what is added. A file's directions stay as long as they are.
"""

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from esr.engine import Capture, Request
from esr.engine.directions import Directions, read_directions
from esr.errors import DataError, ParamsError
from esr.params import DirectionsParams, Params, resolve
from esr.params.weights import file_digest
from esr.sae.labels import read_labels
from esr.study import norms
from esr.study.choose import Baseline
from esr.study.plan import Change
from esr.types import Member, Op, Sampling, Trial

if TYPE_CHECKING:
    from esr.study.study import Study
    from esr.types import type_of_op

COLUMNS = ("subject", "prompt", "text")
READ = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=1)
HEX = 16
"""Digits of a set's hash in its file's name and in the meaning of a trial."""


def set_of(params: Params, model: str) -> str:
    """The name of the set of directions that the model is steered along."""
    name = params.model(model).directions
    if name is None:
        raise ParamsError(f"models.{model}.directions names no set; a block under directions: and its name there would do")
    return name


@dataclass(frozen=True, slots=True)
class Made:
    """A set of directions as a study steers along it."""

    name: str
    """In params.yaml."""
    layers: tuple[int, ...]
    vectors: np.ndarray
    """[layers, directions, width] float32."""
    names: tuple[str, ...]
    """What each direction stands for."""
    norm: float
    """Median length of the residual stream after the first of the layers, where the study steers."""

    @property
    def sha256(self) -> str:
        return Directions(self.name, dict(zip(self.layers, self.vectors, strict=True))).shape.sha256

    @property
    def lengths(self) -> list[float]:
        """Of each direction after the first layer."""
        return [float(length) for length in np.linalg.norm(self.vectors[0], axis=1)]

    def dose(self, direction: int, boost: float) -> float:
        """The length of what is added in lengths of the stream."""
        return boost * self.lengths[direction] / self.norm


@dataclass(frozen=True, slots=True)
class Along:
    """What a study needs to be steered along a set: its file, and what stands for it in a trial's meaning."""

    name: str
    file: Path
    sha256: str
    names: tuple[str, ...]


def directions(study: "Study", name: str) -> Made:
    """The set of this name in params.yaml, for the study's model."""
    block = study.params.directions_of(name)
    layers = tuple(block.layers)
    norm = norms.norm(study, layers[0]).norm
    if block.texts is None:
        found, names = _read(study, name)
        return Made(name, layers, found, names, norm)
    table = inside(study.store.root, block.texts)
    subjects, vectors = means(study, rows(table, file_digest(table)), layers)
    return Made(name, layers, vectors, subjects, norm)


def means(study: "Study", texts: Sequence[tuple[str, str, str]], layers: Sequence[int]) -> tuple[tuple[str, ...], np.ndarray]:
    """Each subject's mean stream minus the mean of all others', at length 1, after each of the layers. A row's text is read as the reply
    to its prompt; where it has none, the prompt itself is read."""
    _ = study.weights, study.meaning, study.backend
    subjects = tuple(dict.fromkeys(subject for subject, _, _ in texts))
    if len(subjects) < 2:
        raise DataError(f"{len(subjects)} subjects have nothing to be contrasted with; two or more would do")
    place = {subject: i for i, subject in enumerate(subjects)}
    form, out = study.params.protocol.prompt_format, []
    for layer in layers:
        asked = [
            Request(
                prompt=prompt, prompt_format=form, prefill=text, sampling=READ,
                capture=Capture(layer=layer, mode="residual", positions="generated" if text else "prompt"),
            )
            for _, prompt, text in texts
        ]  # fmt: skip
        read = study.engine.read(asked)
        sums, counts = np.zeros((len(subjects), read[0].values.shape[1])), np.zeros(len(subjects))
        for (subject, _, _), reading in zip(texts, read, strict=True):
            sums[place[subject]] += reading.values.mean(0, dtype=np.float64)
            counts[place[subject]] += 1
        mean = sums / counts[:, None]
        apart = mean - (mean.sum(0) - mean) / (len(subjects) - 1)
        out.append((apart / np.linalg.norm(apart, axis=1, keepdims=True)).astype(np.float32))
    return subjects, np.stack(out)


def rows(table: Path, _digest: str) -> list[tuple[str, str, str]]:
    """Subject, prompt and text of each line."""
    with table.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file, delimiter="\t")
        if set(COLUMNS) - set(lines.fieldnames or ()):
            raise DataError(
                f"{table.name} has the columns {', '.join(lines.fieldnames or ()) or 'none'}; it needs {', '.join(COLUMNS)}"
            )
        return [(line["subject"], line["prompt"], line["text"] or "") for line in lines]


def inside(store: Path, file: str) -> Path:
    """Where a file of params.yaml lies: in the store when it is there, else in the checkout."""
    path = store / file if (store / file).is_file() else resolve(file)
    if not path.is_file():
        raise DataError(f"no file {file!r} in the store or the checkout; correct params.yaml or put it there")
    return path


def _read(study: "Study", name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    block: DirectionsParams = study.params.directions_of(name)
    path = inside(study.store.root, str(block.file))
    layers = tuple(block.layers)
    found = read_directions(name, path)
    if lacking := sorted(set(layers) - set(found.layers)):
        raise DataError(f"directions {name!r}: {path.name} has blocks {', '.join(map(str, found.layers))}, not {lacking[0]}")
    some = [found.layers[layer] for layer in layers]
    if len({len(one) for one in some}) != 1:
        raise DataError(f"directions {name!r}: {path.name} has another number of directions after each block; one number would do")
    labels = {}
    if block.labels is not None:
        labels = {one.index: one.label for one in read_labels(inside(study.store.root, block.labels), d_sae=len(some[0]))}
    return np.stack(some), tuple(labels.get(i, f"direction {i}") for i in range(len(some[0])))


def along(study: "Study", made: Made) -> "Study":
    """The study with the set in the SAE's place: what is steered, named and looked for. Detectors and clamps stay the SAE's."""
    kept = keep(study.store.root, made)
    return replace(study, params=steered(study.params, study.model, made), along=Along(made.name, kept, made.sha256, made.names))


def steered(params: Params, model: str, made: Made) -> Params:
    """Params of a model that is steered along a set: bounds of the search in boosts, nothing filtered."""
    block, spec = params.directions_of(made.name), params.model(model)
    unit = made.norm / float(np.median(made.lengths))
    search = block.search.model_copy(update={name: unit * getattr(block.search, name) for name in type(block.search).model_fields})
    return params.model_copy(
        update={
            "models": {**params.models, model: spec.model_copy(update={"along": made.name, "search": search})},
            "protocol": params.protocol.model_copy(update={"relevance": "off"}),
        }
    )


def counted(params: Params, latents: int, trials_per_latent: int) -> Params:
    """With so many directions and trials in experiment 1's place."""
    block = {**params.experiments[Baseline.block], "latents": latents, "trials_per_latent": trials_per_latent}
    return params.model_copy(update={"experiments": {**params.experiments, Baseline.block: block}})


def keep(store: Path, made: Made) -> Path:
    """The set as a file, and beside it what is told of it; named by its hash, so that it is written once."""
    from safetensors.numpy import save

    folder, stem = store / "directions", f"{made.name}-{made.sha256[:HEX]}"
    file, beside = folder / f"{stem}.safetensors", folder / f"{stem}.json"
    told = {
        "name": made.name, "sha256": made.sha256, "layers": list(made.layers), "norm": made.norm, "names": list(made.names),
        "lengths": made.lengths,
    }  # fmt: skip
    data = (json.dumps(told, indent=1) + "\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    if not beside.is_file() or beside.read_bytes() != data:  # the norm is no part of the hash
        _aside(beside, data)
    if not file.is_file():
        tensors = {f"layer.{layer}": np.ascontiguousarray(rows) for layer, rows in zip(made.layers, made.vectors, strict=True)}
        _aside(file, save(tensors))
    return file


def _aside(file: Path, data: bytes) -> None:
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.write_bytes(data)
    new.replace(file)


def in_mode(made: Made, mode: str) -> Change:
    """Another way than adding: the stream's length along the direction held at what would be added, or taken out whole."""

    def change(trial: Trial) -> Trial:
        value = 1.0 if mode == "project_out" else trial.boost * made.lengths[trial.latent.index]
        ops = tuple(Op(cast("type_of_op", mode), op.latent, value, op.layer, op.sae) for op in trial.ops)
        return replace(trial, ops=ops, boost=0.0 if mode == "project_out" else trial.boost)

    return change


def check_doses(params: Params, made: Made, members: Sequence[Member]) -> None:
    """No trial adds more than the set's block allows."""
    most = params.directions_of(made.name).max_dose
    for member in members:
        trial = member.trial
        if most is not None and (dose := made.dose(trial.latent.index, abs(trial.boost))) > most:
            raise DataError(
                f"{trial.latent.label!r} would be added at {dose:.3g} lengths of the residual stream and directions.{made.name}.max_dose is "
                f"{most:g}; raise it, or lower exp13.relative or the bounds of the search"
            )
