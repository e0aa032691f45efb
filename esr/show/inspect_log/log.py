"""The log of one arm: a header with the house's numbers, a JSON a sample, and the list of samples; a zip, written as it is read."""

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from esr.count import metrics
from esr.count.metrics import Estimate
from esr.params import Params
from esr.show.inspect_log.arm import Source, trials
from esr.show.inspect_log.sample import VALUES, Json, added, sample, summary

VERSION = 2
"""Of the log format."""
COUNTED = {
    "first_score": "first_score_mean",
    "attempts": "attempts_mean",
    "multi": "multi_attempt_rate",
    "esr": "esr_rate",
    "gain": "gain_all_mean",
}
"""The house's metric of each part of a score; its mean over scored samples is the value."""
ALWAYS = (1980, 1, 1, 0, 0, 0)
"""The time of every member: the same results give the same bytes."""


def write(found: Source, params: Params, against: Source | None, file: Path) -> int:
    """The arm as `file`, whole or not at all; how many samples."""
    usage: list[Mapping[str, Json]] = [{}, {}]
    new = file.with_name(file.name + ".new")
    n = 0
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as out, tempfile.TemporaryFile("w+", encoding="utf-8") as list_of_all:
        head = spec(found, params)
        _put(out, "_journal/start.json", {"version": VERSION, **head})
        for one in trials(found):
            made = sample(found, one)
            _put(out, f"samples/{made['id']}_epoch_{made['epoch']}.json", made)
            list_of_all.write(("[" if n == 0 else ",\n") + _json(summary(made)))
            usage = [added([total, made[kind]]) for total, kind in zip(usage, ("model_usage", "role_usage"), strict=True)]
            n += 1
        list_of_all.write("]")
        list_of_all.seek(0)
        with out.open(zipfile.ZipInfo("summaries.json", ALWAYS), "w", force_zip64=True) as member:
            while part := list_of_all.read(1 << 20):
                member.write(part.encode())
        done = {"status": "success", "stats": _stats(found, usage), "results": results(found, params, against)}
        _put(out, "header.json", {"version": VERSION, **head, **done})
    new.replace(file)
    return n


def _put(out: zipfile.ZipFile, name: str, data: Json) -> None:
    member = zipfile.ZipInfo(name, ALWAYS)
    member.compress_type = zipfile.ZIP_DEFLATED
    out.writestr(member, _json(data))


def _json(data: Any) -> str:
    """NaN, which is how a score that is none is written, stays NaN."""
    return json.dumps(data, ensure_ascii=False, default=_plain)


def _plain(cell: Any) -> Any:
    return cell.item() if hasattr(cell, "item") else str(cell)


def spec(found: Source, params: Params) -> Json:
    """What was evaluated: the arm as a task, its trials as a dataset."""
    run = next((found.runs[judge] for judge in found.judges if judge in found.runs), None)
    manifest = json.loads(run["manifest"]) if run and run["manifest"] else {}
    arm, members = found.arm, found.members
    identity = hashlib.sha256(
        "".join([arm.key, found.model, found.scale, *found.judges, *members["trial_id"]]).encode()
    ).hexdigest()
    first = min((rows["graded_at"].min() for rows in found.outcomes.values() if len(rows)), default=None)
    created = run["started_at"] if run else first
    revision = manifest.get("revision") or {}
    told: Json = {
        "eval_id": identity[:22],
        "run_id": str(run["run_id"]) if run else identity[22:44],
        "created": _utc(created),
        "task": arm.key,
        "task_id": identity[:22],
        "task_version": 0,
        "task_args": {"model": found.model, "scale": found.scale},
        "task_attribs": {},
        "dataset": {"name": arm.key, "samples": int(members.groupby(["latent", "question"]).ngroups), "shuffled": False},
        "model": f"esr/{found.model}",
        "model_args": {},
        "model_generate_config": {"temperature": params.protocol.temperature, "top_p": params.protocol.top_p},
        "config": {"epochs": int(members["epoch"].max())},
        "packages": manifest.get("libraries") or {},
        "tags": [one for one in (arm.experiment, arm.kind, found.scale) if one],
        "scorers": [{"name": judge, "options": {}, "metrics": [{"name": "mean"}]} for judge in found.judges],
        "metadata": {
            "experiment": arm.experiment,
            "arm": arm.name,
            "kind": arm.kind,
            "level": arm.level,
            "compared_with": arm.against or None,
            "scale": found.scale,
            "planned": len(members),
            "line": f"python -m flows {arm.experiment} {found.model} --scale {found.scale}" if run else None,
            "engine": manifest.get("engine"),
        },
    }
    if revision.get("commit"):
        told["revision"] = {"type": "git", "origin": "", "commit": revision["commit"], "dirty": bool(revision.get("dirty"))}
    return {"eval": told, "plan": {"name": "plan", "steps": [{"solver": f"esr {arm.kind}", "params": {}}], "config": {}}}


def _utc(at: Any) -> str:
    when = at if isinstance(at, datetime) and at == at else datetime(1970, 1, 1)
    return when.replace(tzinfo=UTC).isoformat(timespec="seconds")


def _stats(found: Source, usage: Sequence[Mapping[str, Json]]) -> Json:
    run = next((found.runs[judge] for judge in found.judges if judge in found.runs), None)
    started, ended = (run["started_at"], run["finished_at"]) if run else (None, None)
    return {
        "started_at": _utc(started) if started else "",
        "completed_at": _utc(ended) if ended else "",
        "model_usage": dict(usage[0]),
        "role_usage": dict(usage[1]),
    }


def results(found: Source, params: Params, against: Source | None) -> Json:
    """Of each judge the rates and means with their intervals, and what differs in pairs from the arm it is compared with."""
    p = params.protocol
    scores: list[Json] = []
    for judge, rows in found.outcomes.items():
        scored, planned = len(rows), len(found.members)
        frame = metrics.outcomes_frame(rows, exclude_degraded=p.exclude_degraded)
        counted = metrics.estimates(frame, confidence=p.confidence) if len(frame) else {}
        base = against.outcomes.get(judge) if against else None
        held = {}
        if base is not None and len(base) and len(frame):
            other = metrics.outcomes_frame(base, exclude_degraded=p.exclude_degraded)
            held = metrics.differences(frame, other, confidence=p.confidence)
        for part in VALUES:
            e = counted.get(COUNTED[part])
            told = {"mean": _metric("mean", e)} if e is not None and e.value is not None else {}
            if part == "esr" and (better := counted.get("improvement_rate")) is not None and better.value is not None:
                told["improvement_rate"] = _metric("improvement_rate", better)
            d = held.get(COUNTED[part])
            more = (
                {}
                if d is None
                else {"minus_" + found.arm.against: {"value": d.value, "interval": d.interval, "pairs": d.n, "p": d.p}}
            )
            scores.append(
                {
                    "name": part,
                    "scorer": judge,
                    "scored_samples": scored,
                    "unscored_samples": planned - scored,
                    "params": {},
                    "metrics": told,
                    "metadata": {"confidence": p.confidence, "exclude_degraded": p.exclude_degraded, **more},
                }
            )
    return {"total_samples": len(found.members), "completed_samples": len(found.members), "scores": scores}


def _metric(name: str, e: Estimate) -> Json:
    told = {"interval": e.interval, "n": e.n, "method": e.method, "no_interval": e.no_interval, "latents": e.latents}
    return {"name": name, "value": e.value, "params": {}, "metadata": {**told, "n_effective": e.n_effective, "metric": e.metric}}
