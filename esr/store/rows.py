"""Nouns as rows: what a member, a reply or a grade is in the tables."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from esr.count.degraded import degraded
from esr.errors import StoreError
from esr.store import schema
from esr.types import Grade, Member, Op, Reply, Trial

Row = dict[str, Any]


def trials(members: Sequence[Member]) -> list[Row]:
    """Each trial once."""
    return [trial(t) for t in {member.trial.id: member.trial for member in members}.values()]


def trial(t: Trial) -> Row:
    details = [op.more for op in t.ops]
    return {
        "trial_id": t.id,
        "model": t.model,
        "weights": t.weights,
        "prompt": t.prompt,
        "prompt_format": t.prompt_format,
        "prefill": t.prefill_text,
        "prefill_ids": list(t.prefill) or None,
        "seed": t.seed,
        **asdict(t.sampling),
        "scope": t.scope,
        "ops": [{name: getattr(op, name) for name in Op.__slots__} for op in t.ops],
        "op_details": json.dumps(details, separators=(",", ":")) if any(details) else None,
        "meaning": t.meant or None,
    }


def members(some: Sequence[Member], plan: str) -> list[Row]:
    found = {
        (m.trial.id, m.trial.latent.index): {
            "experiment": m.arm.experiment,
            "model": m.model,
            "arm": m.arm.name,
            "scale": m.scale,
            "plan": plan,
            "trial_id": m.trial.id,
            "question": m.trial.question,
            "latent": m.trial.latent.index,
            "latent_label": m.trial.latent.label,
            "boost": float(m.trial.boost),
            "threshold": m.trial.threshold,
        }
        for m in some
    }
    return list(found.values())


def arms(members: Sequence[Member], at: datetime) -> list[Row]:
    """Each arm once."""
    found = {(m.arm.key, m.model, m.scale): (m.arm, m.model, m.scale) for m in members}
    return [
        {
            "experiment": arm.experiment,
            "model": model,
            "arm": arm.name,
            "scale": scale,
            "kind": arm.kind or None,
            "level": arm.level,
            "place": arm.order,
            "against": arm.against or None,
            "mean": arm.mean,
            "std": arm.std,
            "recorded_at": at,
        }
        for arm, model, scale in found.values()
    ]


def replies(some: Sequence[Reply]) -> list[Row]:
    return [
        {
            "trial_id": r.trial_id,
            "text": r.text,
            "token_ids": list(r.token_ids),
            "n_prompt_tokens": r.n_prompt_tokens,
            "finish_reason": r.finish_reason,
            "applied": r.applied,
            "degraded": degraded(r.text),
        }
        for r in some
    ]


def grades(some: Sequence[Grade], at: datetime) -> list[Row]:
    return [
        {
            "trial_id": g.trial_id,
            "latent": g.latent,
            "judge": g.judge,
            "judge_prompt": g.judge_prompt,
            "attempts": [asdict(attempt) for attempt in g.attempts],
            "missing": g.missing,
            "answer_key": g.answer_key,
            "input_tokens": g.input_tokens,
            "output_tokens": g.output_tokens,
            "cost": g.cost,
            "graded_at": at,
            "shown": g.shown,
        }
        for g in some
    ]


PART = 2048
"""Values of a row of `activations`: DuckDB takes 2,048 rows at once, so readers need 50 MB at a time and not a text's length of it."""


def activations(texts: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Each text's values in parts; whatever is the same of all stands in every part."""
    for text in texts:
        lengths = {len(text[name]) for name in ("latents", "values")} | (
            {len(p)} if (p := text.get("positions")) is not None else set()
        )
        if len(lengths) != 1:
            raise StoreError(
                f"the lists of text {text.get('trial_id')!r:.60} have the lengths {sorted(lengths)}; give one latent, position and value each"
            )
        for part, at in enumerate(range(0, max(lengths.pop(), 1), PART)):
            cut = {name: text[name][at : at + PART] for name in ("latents", "positions", "values") if text.get(name) is not None}
            yield {**text, **cut, "part": part}


def plain(table: str, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows with times as naive UTC and trees as JSON text."""
    times = [f.name for f in schema.table(table).schema if pa.types.is_timestamp(f.type)]
    texts = [f.name for f in schema.table(table).schema if pa.types.is_string(f.type)]
    out = []
    for row in rows:
        done = dict(row)
        for name in times:
            done[name] = utc(done.get(name))
        for name in texts:
            if isinstance(done.get(name), (dict, list)):
                done[name] = json.dumps(done[name], ensure_ascii=False, sort_keys=True, default=str)
        out.append(done)
    return out


def utc(given: object) -> datetime | None:
    """A time or its ISO text as naive UTC; a text without a zone is UTC."""
    at = given
    if isinstance(given, str):
        try:
            at = datetime.fromisoformat(given)
        except ValueError:
            raise StoreError(f"{given[:100]!r} is not a time; write it as 2026-02-06T12:00:00Z") from None
    if at is None or (isinstance(at, datetime) and at.tzinfo is None):
        return at
    if not isinstance(at, datetime):
        raise StoreError(f"{at!r:.100} is not a time; give a datetime or ISO text")
    return at.astimezone(UTC).replace(tzinfo=None)
