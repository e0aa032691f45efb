"""What latents do at every token of stored replies, read teacher-forced on the very tokens that were generated.

    readings.listed(study, members, [75, 12], steering="on", stage="before")     # rows of the table `activations`
    readings.distractors(study, members, steering="on", stage="before")
    readings.largest(study, members, 32, steering="on", stage="before")

Two protocols, kept apart by name: `on` reads under the trial's own interventions, `off` without any. The positions are those that the
model computed when it generated: prompt and reply but for the last token, which is never fed back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from esr.engine import Capture, Engine, Reading, Request
from esr.engine.scope import END, span
from esr.errors import DataError
from esr.study.batches import work
from esr.study.progress import Tick
from esr.types import Member, Sampling, Trial, content_id

if TYPE_CHECKING:
    from esr.study.study import Study

READ = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=1)
STAGE = "read"
Steering = Literal["on", "off"]
Stage = Literal["before", "after"]
Row = dict[str, Any]


def list_name(latents: Sequence[int]) -> str:
    """A list of latents by its content, so that a changed list is another selection."""
    return f"list-{content_id(sorted(set(latents)), length=12)}"


@dataclass(frozen=True, slots=True)
class _What:
    """What is read of each reply, under which name."""

    selection: str
    capture: Callable[[Trial, int], Capture]
    """Of a trial whose prompt has so many tokens."""
    rows: Callable[[Trial, Reading], Row]


def listed(study: "Study", members: Sequence[Member], latents: Sequence[int], *, steering: Steering, stage: Stage) -> int:
    """Every value of these latents; how many replies were read anew."""
    wanted = tuple(sorted(set(latents)))
    return _each(study, members, list_name(wanted), lambda _: wanted, steering, stage) if wanted else 0


def distractors(study: "Study", members: Sequence[Member], *, steering: Steering, stage: Stage) -> int:
    """Of each reply the latent that steers it."""
    return _each(study, members, "distractor", lambda trial: (trial.latent.index,), steering, stage)


def _each(
    study: "Study", members: Sequence[Member], selection: str, of: Callable[[Trial], tuple[int, ...]], steering: Steering, stage: Stage
) -> int:  # fmt: skip
    spec = study.spec

    def rows(trial: Trial, reading: Reading) -> Row:
        found, wanted = reading.values.T, of(trial)  # [latents, positions]
        which, at = np.nonzero(found)
        return {
            "latents": np.array(wanted, np.int32)[which], "positions": reading.positions[at].astype(np.int32), "values": found[which, at],
            "listed": list(wanted),
        }  # fmt: skip

    def capture(trial: Trial, n_prompt: int) -> Capture:
        return Capture(layer=spec.read_layer, sae=spec.sae, mode="latents", latents=of(trial), stage=stage)

    return _read(study, members, _What(selection, capture, rows), steering, stage)


def largest(study: "Study", members: Sequence[Member], k: int, *, steering: Steering, stage: Stage) -> int:
    """The k largest latents of each token of the reply; how many replies were read anew."""
    spec = study.spec

    def rows(_: Trial, reading: Reading) -> Row:
        assert reading.indices is not None
        some = reading.values != 0
        at, _rank = np.nonzero(some)
        return {"latents": reading.indices[some].astype(np.int32), "positions": reading.positions[at].astype(np.int32), "values": reading.values[some]}  # fmt: skip

    def capture(_: Trial, n_prompt: int) -> Capture:
        return Capture(layer=spec.read_layer, sae=spec.sae, mode="topk", k=k, stage=stage, positions=f"[{n_prompt},)")

    return _read(study, members, _What(f"top-{k}", capture, rows), steering, stage)


def _read(study: "Study", members: Sequence[Member], what: _What, steering: Steering, stage: Stage) -> int:
    trials = {member.trial.id: member.trial for member in members}
    spec = study.spec
    where = {
        "model": study.model,
        "sae": spec.sae,
        "layer": spec.read_layer,
        "steering": steering,
        "stage": stage,
        "selection": what.selection,
    }
    with study.alone("activations", sorted(trials), *where.values()):
        asked = " and ".join(f"{name} = ?" for name in where)
        there = study.store.sql(
            f"select distinct trial_id from activations where {asked} and trial_id in (select unnest(?))",
            [*where.values(), list(trials)],
        )
        lacking = [trials[key] for key in sorted(trials.keys() - set(there["trial_id"].to_pylist()))]
        study.progress.expect(STAGE, len(trials))
        study.progress.stored(STAGE, len(trials) - len(lacking))
        if not lacking:
            return 0
        engine = study.engine

        def read(some: Sequence[Trial]) -> list[Row]:
            study.progress.go_on()
            known = replies(study, [trial.id for trial in some])
            asked = [request(engine, trial, known[trial.id], what.capture, steering) for trial in some]
            found = engine.read(asked)
            about = {**where, "pooling": "token"}
            return [
                {**about, "trial_id": trial.id, "n_positions": len(one.token_ids), **what.rows(trial, reading)}
                for trial, one, reading in zip(some, asked, found, strict=True)
            ]

        w = study.params.work
        for some in work(read, lacking, size=w.batch, in_flight=w.in_flight):
            study.store.put_activations(some)
            study.progress.tick(Tick(STAGE, len(some)))
    return len(lacking)


def replies(study: "Study", ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Tokens of these trials' replies, and how long their prompts were, by trial."""
    query = "select trial_id, token_ids, n_prompt_tokens from replies where trial_id in (select unnest(?))"
    found = {row["trial_id"]: row for row in study.store.sql(query, [list(ids)]).to_pylist()}
    if lost := [key for key in ids if key not in found or found[key]["token_ids"] is None]:
        raise DataError(
            f"trial {lost[0]} has no reply with its tokens in the store; imported replies cannot be read, generated ones can"
        )
    return found


def request(
    engine: Engine, trial: Trial, reply: Mapping[str, Any], capture: Callable[[Trial, int], Capture], steering: Steering
) -> Request:
    """The sequence as it was generated, with the trial's own steering or with none."""
    prompt = engine.render(trial.prompt, trial.prompt_format, trial.prefill)
    n_prompt = len(prompt)
    if n_prompt != reply["n_prompt_tokens"]:
        raise DataError(
            f"trial {trial.id} was generated behind {reply['n_prompt_tokens']} tokens and its prompt is rendered to {n_prompt} now; "
            "another tokenizer or chat rendering would read other positions"
        )
    ids = (*prompt, *reply["token_ids"][:-1])
    on = steering == "on"
    return Request(
        token_ids=ids, sampling=READ, ops=trial.ops if on else (), scope=absolute(trial.scope, n_prompt) if on else "all", capture=capture(trial, n_prompt)
    )  # fmt: skip


def absolute(scope: str, n_prompt: int) -> str:
    """The same positions in a sequence that is all prompt."""
    if scope == "all":
        return scope
    found = span(scope, n_prompt)
    marker = "" if found.after is None else f" after {found.after}"
    return f"[{found.lo},{END if found.hi is None else found.hi}){marker}"
