"""How long the residual stream is where a study steers, and how long one boost is there: what makes a dose of a boost.

    norms.norm(study, 3)           # Norm(layer=3, scope="all", norm=98.4, tokens=4310, replies=38)
    norms.measure(study, found)    # that and each latent's length, in the store; what is there is not measured again

Both are read of the engine that steers. The stream: over an unsteered reply to each evaluation question, at the positions that are
steered; the median, so that a prompt's first token, many times longer than others, says nothing. A latent's length: by how much the
stream differs behind its own threshold's boost, for one boost.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from esr.engine import Capture, Engine, Request
from esr.prompts import evaluation
from esr.study import readings, steer
from esr.study.batches import cut
from esr.study.plan import steer_op, stream
from esr.types import Op, Scope, Trial, content_id

if TYPE_CHECKING:
    from esr.study.calibrate import Threshold
    from esr.study.study import Study

STAGE = "norm"
AT_ONCE = 32
"""Texts whose stream is asked for at once: a long one of a wide model is some 20 MB."""
LAST = 4
"""Positions of a prompt that a latent's length is read at: the mean, since a stream of bfloat16 is rounded at each."""


@dataclass(frozen=True, slots=True)
class Norm:
    layer: int
    """Block whose output was read."""
    scope: Scope
    """Positions that were read: those that the study steers."""
    norm: float
    """Median length of the residual stream."""
    tokens: int
    """Positions that the median is over."""
    replies: int


def layer_of(study: "Study") -> int:
    """The block after which a study steers, the first of several."""
    m = study.spec
    return study.params.directions_of(m.along).layers[0] if m.along else m.steer_layer


def norm(study: "Study", layer: int) -> Norm:
    """Of the stream after a block; from the store where it is there."""
    scope, trials = study.params.protocol.scope, _unsteered(study)
    named = content_id("norm", layer, scope, [trial.id for trial in trials], length=16)
    with study.alone(STAGE, named):
        rows = study.store.sql("select layer, scope, norm, tokens, replies from norms where norm_id = ?", [named]).to_pylist()
        if not rows:
            study.progress.expect(STAGE, len(trials))
            steer.replies(study, trials, STAGE)
            found = _read(study, trials, layer, scope)
            rows = [asdict(found)]
            study.store.put_measured("norms", [{"norm_id": named, "model": study.model, "weights": study.weights, **rows[0]}])
    return Norm(**rows[0])


def measure(study: "Study", found: "Sequence[Threshold]") -> Norm:
    """Both: the stream where the study steers, and of each of these latents what one boost adds."""
    told = norm(study, layer_of(study))
    boosts = {one.latent.index: one.boost for one in found if one.boost}
    ops = {latent: steer_op(study.params, study.model, latent, boost)[0] for latent, boost in boosts.items()}
    sets = json.loads(study.meaning)["saes"]
    with study.alone("length", sorted(ops)):
        known = study.store.sql(
            "select latent, sae, content, layer from lengths where model = ? and latent in (select unnest(?))",
            [study.model, sorted(ops)],
        ).to_pylist()
        there = {(row["latent"], row["sae"], row["content"], row["layer"]) for row in known}
        lacking = [op for _, op in sorted(ops.items()) if (op.latent, op.sae, sets[op.sae], op.layer) not in there]
        rows = [
            {
                "model": study.model,
                "sae": op.sae,
                "content": sets[op.sae],
                "layer": op.layer,
                "latent": op.latent,
                "length": length,
            }
            for op, length in zip(lacking, _lengths(study, lacking), strict=True)
        ]
        study.store.put_measured("lengths", rows)
    return told


def _unsteered(study: "Study") -> list[Trial]:
    """One to each evaluation question."""
    rng, p = stream(study.params, STAGE), study.params.protocol
    return [
        Trial(
            model=study.model, weights=study.weights, meaning=study.meaning, prompt=question, prompt_format=p.prompt_format,
            seed=rng.randrange(p.n_seeds), sampling=study.params.sampling(study.model), question=question,
        )
        for question in evaluation()
    ]  # fmt: skip


def _read(study: "Study", trials: Sequence[Trial], layer: int, scope: Scope) -> Norm:
    engine: Engine = study.engine
    replies = readings.replies(study, [trial.id for trial in trials])

    def capture(_: Trial, n_prompt: int) -> Capture:
        return Capture(layer=layer, mode="residual", positions=readings.absolute(scope, n_prompt))

    asked = [readings.request(engine, trial, replies[trial.id], capture, "off") for trial in trials]
    lengths = [np.linalg.norm(reading, axis=1) for reading in _streams(study, asked)]
    whole = np.concatenate(lengths)
    return Norm(layer, scope, float(np.median(whole)), len(whole), len(trials))


def _lengths(study: "Study", ops: Sequence[Op]) -> list[float]:
    """Of what one boost of each adds."""
    if not ops:
        return []
    question, form = evaluation()[0], study.params.protocol.prompt_format
    n = len(study.engine.render(question, form))
    capture = Capture(layer=ops[0].layer, mode="residual", positions=f"[{n - LAST},{n})", stage="after")
    plain = Request(prompt=question, prompt_format=form, sampling=readings.READ, capture=capture)
    base, *steered = _streams(study, [plain, *(replace(plain, ops=(op,)) for op in ops)])
    return [float(np.linalg.norm((one - base).mean(0)) / abs(op.value)) for op, one in zip(ops, steered, strict=True)]


def _streams(study: "Study", asked: Sequence[Request]) -> list[np.ndarray]:
    """[positions, width] of each."""
    adapter = study.spec.adapter or ""
    own = [replace(one, adapter=adapter) for one in asked]
    return [reading.values for some in cut(own, AT_ONCE) for reading in study.engine.read(some)]
