"""One trial as a sample of inspect: what the model was shown, what it wrote, what every judge said, and how it was made."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from esr.show.inspect_log.arm import Row, Source, Trial, reasons

UNSCORED = float("nan")
"""What inspect keeps out of every denominator."""
STOPS = {"stop": "stop", "length": "max_tokens"}
VALUES = {"esr": "corrected", "multi": "multi", "first_score": "first_score", "attempts": "n_attempts", "gain": "gain"}
"""Parts of a judge's score, by the columns of the view `outcomes`; the list of logs shows the first."""
LONG = 1000
"""Characters of a text in the list of samples."""
Json = dict[str, Any]


def name(member: Row) -> str:
    """The same in every arm: the latent, the words of the question, and a hash that tells like questions apart."""
    question = str(member["question"])
    slug = re.sub(r"[^a-z0-9]+", "-", question.lower()).strip("-")[:48].strip("-")
    return f"{int(member['latent'])}-{slug}-{hashlib.sha256(question.encode()).hexdigest()[:6]}"


def sample(found: Source, one: Trial) -> Json:
    trial, reply, text = one.trial, one.reply, (one.reply or {}).get("text") or ""
    shown = [{"role": "user", "content": trial["prompt"], "source": "input"}]
    if trial["prefill"]:
        shown.append({"role": "assistant", "content": trial["prefill"], "source": "input"})
    usage = _usage((reply or {}).get("n_prompt_tokens"), (reply or {}).get("token_ids"))
    message = {"role": "assistant", "content": text, "source": "generate", "model": found.model}
    stop = STOPS.get(str((reply or {}).get("finish_reason")), "unknown")
    output: Json = {
        "model": found.model,
        "choices": [{"message": message, "stop_reason": stop}],
        "completion": text,
        "usage": usage,
    }
    if reply is None:
        output["error"] = "there is no reply yet"
    judged = {judge: _asked(one.grades[judge]) for judge in found.judges if judge in one.grades}
    return {
        "id": name(one.member),
        "epoch": int(one.member["epoch"]),
        "input": trial["prompt"] if len(shown) == 1 else shown,
        "target": str(one.member["question"]),
        "messages": [*shown, message] if reply is not None else shown,
        "output": output,
        "scores": {judge: score(found, one, judge) for judge in found.judges},
        "metadata": metadata(found, one),
        "store": {},
        "events": [],
        "model_usage": {found.model: usage} if reply is not None else {},
        "role_usage": judged,
        "uuid": f"{trial['trial_id']}-{int(one.member['latent'])}",
        "attachments": {},
    }


def summary(one: Json) -> Json:
    """What the list of samples shows, with long texts cut."""
    kept = ("id", "epoch", "target", "model_usage", "role_usage", "uuid")
    shown = one["input"] if isinstance(one["input"], str) else one["input"][0]["content"]
    metadata = {key: cell for key, cell in one["metadata"].items() if isinstance(cell, str | int | float | bool) or cell is None}
    scores = {
        judge: {key: _cut(cell) if isinstance(cell, str) else cell for key, cell in told.items() if key != "metadata"}
        for judge, told in one["scores"].items()
    }
    more = {"input": _cut(shown), "metadata": metadata, "scores": scores, "completed": True, "message_count": len(one["messages"])}
    return {key: one[key] for key in kept} | more


def score(found: Source, one: Trial, judge: str) -> Json:
    """A judge's verdict; where there is no valid grade, unscored with the reason."""
    outcome, grade = one.outcomes.get(judge), one.grades.get(judge)
    told: Json = {"metadata": _graded(grade, one.answers.get(judge))}
    if outcome is None:
        why = found.missing[judge].get((str(one.member["trial_id"]), int(one.member["latent"])), "not asked")
        return told | {"value": dict.fromkeys(VALUES, UNSCORED), "reason": why, "explanation": f"missing: {why}"}
    value = {key: _number(outcome[column]) for key, column in VALUES.items()}
    lines = [_attempt(a, grade) for a in (grade or {}).get("attempts") or () if grade and a["score"] is not None]
    said = [reasons(one.answers[judge])] if judge in one.answers else []
    return told | {
        "value": value,
        "answer": " → ".join(f"{s:g}" for s in outcome["scores"]),
        "explanation": "\n\n".join([*said, *lines]),
    }


def _attempt(one: Row, grade: Row) -> str:
    """A score with its quotation; what the judge made up counts for nothing."""
    invented = one["start"] is None and grade["judge_prompt"] != "reference"
    return f"{one['score']:g}{' (not in the reply)' if invented else ''}: {one['text']}"


def _graded(grade: Row | None, answer: str | None) -> Json:
    if grade is None:
        return {}
    attempts = [{key: a[key] for key in ("score", "text", "start", "end")} for a in grade["attempts"] or ()]
    told = {
        "attempts": attempts,
        "judge_prompt": grade["judge_prompt"],
        "told_of_latent": int(grade["latent"]),
        "cost": grade["cost"],
    }
    at = grade["graded_at"]
    return told | {"graded_at": None if at is None else at.isoformat()} | ({} if answer is None else {"answer": answer})


def metadata(found: Source, one: Trial) -> Json:
    """How the trial was planned and made."""
    member, trial, reply = one.member, one.trial, one.reply or {}
    run = next((found.runs[judge] for judge in found.judges if judge in found.runs), None)
    details = json.loads(trial["op_details"]) if trial["op_details"] else None
    return {
        "experiment": found.arm.experiment,
        "arm": found.arm.name,
        "kind": found.arm.kind,
        "latent": int(member["latent"]),
        "label": member["latent_label"],
        "boost": _number(member["boost"]),
        "threshold": _number(member["threshold"]),
        "seed": int(trial["seed"]) if trial["seed"] is not None else None,
        "degraded": reply.get("degraded"),
        "positions_steered": reply.get("applied"),
        "trial_id": trial["trial_id"],
        "run_id": run["run_id"] if run else None,
        "code": _commit(run),
        "weights": trial["weights"],
        "scope": trial["scope"],
        "ops": trial["ops"] or [],
        "op_details": details,
        "sampling": {key: trial[key] for key in ("temperature", "top_p", "repetition_penalty", "max_tokens")},
        "prompt_format": trial["prompt_format"],
        "prefill": trial["prefill"] or "",
        "meaning": json.loads(trial["meaning"]) if trial["meaning"] else None,
    }


def _commit(run: Row | None) -> str | None:
    return None if run is None or not run["manifest"] else json.loads(run["manifest"]).get("revision", {}).get("commit")


def _usage(before: int | None, tokens: Sequence[int] | None) -> Json:
    read, wrote = int(before or 0), len(tokens) if tokens is not None else 0
    return {"input_tokens": read, "output_tokens": wrote, "total_tokens": read + wrote}


def _asked(grade: Row) -> Json:
    read, wrote = int(grade["input_tokens"] or 0), int(grade["output_tokens"] or 0)
    return {"input_tokens": read, "output_tokens": wrote, "total_tokens": read + wrote, "total_cost": grade["cost"]}


def added(usages: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """Usage by model or judge, summed; a cost that is unknown once is unknown."""
    out: dict[str, Json] = {}
    for usage in usages:
        for who, one in usage.items():
            sums = out.setdefault(who, dict.fromkeys(one, 0))
            for key, n in one.items():
                sums[key] = None if n is None or sums.get(key, 0) is None else sums.get(key, 0) + n
    return out


def _number(cell: Any) -> float | int | None:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    return int(cell) if float(cell).is_integer() else float(cell)


def _cut(text: str) -> str:
    return text if len(text) <= LONG else text[: LONG - 1] + "…"
