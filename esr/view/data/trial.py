"""One trial whole: what the model saw, its reply, every verdict, what was read of it, and the same trial in other arms."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from esr.engine.chat import FAMILIES, Special, rendering
from esr.errors import EsrError, StoreError
from esr.judge.instructed.feedback import feedback
from esr.judge.lexical import why
from esr.judge.lexical.restarts import restarts
from esr.judge.locate import locate
from esr.judge.providers.given import Given, given
from esr.judge.topical import Topical
from esr.judge.topical import why as topical
from esr.judge.topical.named import named
from esr.params import load, path
from esr.show.plain import plain
from esr.show.trial import again, whole_id
from esr.store import Store
from esr.view.data import latents
from esr.view.data.choice import Address, Choice, need
from esr.view.data.readings import readings, roles

MOST_FREQUENT = 12
"""Words told of each side of a score that was counted."""
LEXICAL, IMPORTED = "lexical", "reference"
"""The judge that counts words, by its name in params.yaml, and the instructions of grades that were imported."""


def trial(store: Store, address: Address) -> Any:
    """By its id; the first characters are enough."""
    beginning = need(address, "id")
    with store.asking() as ask:
        whole = whole_id(ask, beginning)
    return trials_whole(store, [whole])[whole]


TRIALS = "select * from trials where trial_id in (select unnest(?))"
REPLIES = """
select r.*, k.char_starts, k.char_ends from replies r left join tokens k using (trial_id) where trial_id in (select unnest(?))
"""
MEMBERS = """
select m.*, a.kind, a.against from current_members m left join current_arms a using (experiment, model, arm, scale)
where trial_id in (select unnest(?)) order by m.trial_id, m.experiment, m.arm, m.latent
"""
GRADES = "select * from grades where trial_id in (select unnest(?)) order by trial_id, judge, latent, graded_at"
REGIONS = "select * from regions where trial_id in (select unnest(?)) order by trial_id, source, place"


def trials_whole(store: Store, ids: Sequence[str], *, read: bool = True) -> dict[str, Any]:
    """Of several at once; `read`: with what was read token by token."""
    with store.asking() as ask:
        rows = ask(TRIALS, [ids]).to_pylist()
        replies = {row["trial_id"]: row for row in ask(REPLIES, [ids]).to_pylist()}
        by = {name: _by_trial(ask(query, [ids]).to_pylist()) for name, query in (("members", MEMBERS), ("grades", GRADES), ("regions", REGIONS))}  # fmt: skip
        prompts = {key: row["n_prompt_tokens"] for key, row in replies.items()}
        seen = readings(ask, prompts) if read else {}
        watched = {model: roles(ask, model) for model in {row["model"] for row in rows}}
    answers = _answers(store, sorted({g["answer_key"] for some in by["grades"].values() for g in some if g["answer_key"]}))
    labels = {model: latents.known_labels(store, Choice(model, "full", "")) for model in watched}
    families = {model: _family(model) for model in watched}
    out = {}
    for row in rows:
        key = row["trial_id"]
        reply, members = replies.get(key), by["members"].get(key, [])
        named = {m["latent"]: m["latent_label"] for m in members if m["latent_label"]}
        told = {
            "trial": _trial(row),
            "seen": seen_prompt(row, families[row["model"]]),
            "reply": _reply(reply),
            "members": members,
            "again": again(row, members),
            "verdicts": [_verdict(row, reply, grade, answers) for grade in by["grades"].get(key, [])],
            "restarts": [[span.start, span.end] for span in restarts(reply["text"])] if reply else [],
            "regions": by["regions"].get(key, []),
            "tokens": {"starts": reply["char_starts"], "ends": reply["char_ends"]} if reply and reply["char_starts"] else None,
            "readings": seen.get(key, []) if read else None,
            "roles": watched[row["model"]],
        }
        told["labels"] = {str(i): named.get(i) or labels[row["model"]].get(i, "") for i in _mentioned(told)}
        out[key] = plain(told)
    return out


def _answers(store: Store, keys: Sequence[str]) -> Mapping[str, Given]:
    """A grade stands without the words that it was read from."""
    try:
        return given(store.root, keys)
    except StoreError:
        return {}


def _by_trial(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    out: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        out.setdefault(row["trial_id"], []).append({name: value for name, value in row.items() if name != "trial_id"})
    return out


def _trial(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in row.items() if name not in ("prefill_ids", "op_details", "meaning")}
    return {**kept, "op_details": json.loads(row["op_details"]) if row["op_details"] else None}


def seen_prompt(row: Mapping[str, Any], family: str | None) -> list[list[Any]] | None:
    """Pieces as [text, is a special token]; None: how it was rendered is not known here, or was another way."""
    chat = json.loads(row["meaning"]).get("chat") if row["meaning"] else None
    if family is None or chat != rendering(family):
        return None
    pieces = FAMILIES[family].turn(row["prompt"])
    if row["prompt_format"] == "double_header":
        pieces = [*pieces, *FAMILIES[family].second_header]
    return [[str(piece), isinstance(piece, Special)] for piece in pieces]


def _family(model: str) -> str | None:
    try:
        return load(model).model(model).family
    except EsrError:
        return None


def _reply(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        **{name: row[name] for name in ("text", "n_prompt_tokens", "finish_reason", "applied", "degraded")},
        "n_tokens": len(row["token_ids"]) if row["token_ids"] is not None else None,
    }


def _verdict(
    trial: Mapping[str, Any], reply: Mapping[str, Any] | None, grade: Mapping[str, Any], answers: Mapping[str, Any]
) -> dict[str, Any]:
    """Attempts, and why: the judge's own words, or the words that were counted."""
    answer = answers.get(grade["answer_key"] or "")
    attempts = _attempts(grade, reply["text"] if reply else "")
    if reply is not None and not answer:
        attempts = [
            {**one, **_counted(grade, trial["prompt"], reply["text"][one["start"] : one["end"]])}
            if one["start"] is not None
            else one
            for one in attempts
        ]
    return {
        **{
            name: grade[name]
            for name in ("judge", "judge_prompt", "latent", "missing", "cost", "input_tokens", "output_tokens", "graded_at")
        },
        "attempts": attempts,
        "feedback": feedback(answer.text) if answer else "",
        "raw": answer.text if answer else None,
        "by": answer.model if answer else None,
    }


def _attempts(grade: Mapping[str, Any], text: str) -> list[dict[str, Any]]:
    """With the text of those that have no place in the reply; imported ones, which tell of no place, are looked for."""
    out, last, imported = [], 0, grade["judge_prompt"] == IMPORTED
    for one in grade["attempts"] or []:
        told = {name: one[name] for name in ("score", "start", "end")}
        if imported and one["start"] is None and (span := locate(one["text"] or "", text, last)) is not None:
            told |= {"start": span.start, "end": span.end}
        last = told["end"] or last
        counts = one["score"] is not None and (imported or one["start"] is not None)
        out.append({**told, "counts": counts, **({"text": one["text"]} if told["start"] is None else {})})
    return out


def _counted(grade: Mapping[str, Any], prompt: str, text: str) -> dict[str, Any]:
    """The words that the score of an attempt rests on, of a judge that counts them; nothing of another, or of one that is another today."""
    found: why.Why | topical.Why | None = None
    if grade["judge"] == LEXICAL:
        found = why.why(prompt, text)
    elif (judge := _topical(grade["judge"])) is not None and judge.prompt_hash == grade["judge_prompt"]:
        found = topical.why(judge, prompt, text)
    if found is None:
        return {}
    return {"why": found.sentence(), "on": list(found.on.items())[:MOST_FREQUENT], "off": list(found.off.items())[:MOST_FREQUENT]}


def _topical(name: str) -> Topical | None:
    """The judge of this name, where it is one of params.yaml that counts by a reference and the reference is here."""
    return _named(name, path(), path().stat().st_mtime_ns) if path().is_file() else None


@lru_cache(maxsize=32)
def _named(name: str, _params: Path, _changed: int) -> Topical | None:
    try:
        spec = load().judges.get(name)
        return named(spec) if spec is not None and spec.client == "topical" else None
    except EsrError:
        return None


def _mentioned(told: Mapping[str, Any]) -> list[int]:
    """Latents that the page names: of ops, members, watched lists and readings."""
    found = {op["latent"] for op in told["trial"]["ops"] or []} | {m["latent"] for m in told["members"]}
    if told["readings"]:
        found |= {latent for some in told["roles"].values() for latent in some}
    for one in told["readings"] or []:
        found |= {row["latent"] for row in one.get("series", ())} | set(one.get("silent", ()))
        found |= {int(latent) for token in one.get("largest", ()) for latent, _ in token}
    return sorted(latent for latent in found if latent >= 0)
