"""The authors' smaller files: threshold caches, detector sets, second judges, activation statistics, ratings."""

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from esr.reference import names as naming
from esr.reference.results import PLAN, Context, Rows, grade, question
from esr.reference.scores import number, verdict, whole, words
from esr.reference.stream import LIST
from esr.types import content_id

Head = Mapping[str, Any]


def kind(path: PurePath, head: Head) -> str | None:
    """What a JSON file is; None: not one of the authors'. `results` and `regraded` stream, the others are whole in `head`."""
    stem = path.stem.lower()
    if "results_by_feature" in head:
        whole_kind = head["results_by_feature"] is LIST and isinstance(head.get("experiment_config"), Mapping)
        return "results" if whole_kind else None
    if head.get("") is LIST:
        return "episodes" if "activation_stats" in path.parts and stem.startswith("episode") else None
    if "activations" in head and "token_strings" in head:
        return "sequential_activations"
    if isinstance(head.get("off_topic_detectors"), list):
        return "detectors"
    if head.get("results") is LIST and stem.startswith("regraded"):
        return "regraded"
    if stem.startswith("sample_metadata") and "source_files" in head:
        return "sample_metadata"
    if stem.startswith("threshold_cache") and head and all(_threshold(key, value) for key, value in head.items()):
        return "threshold_cache"
    if stem.startswith("concreteness_scores") and all(_rating(value) is not None for value in head.values()):
        return "concreteness"
    known = ("episode", "baseline_stats", "analysis_results")
    if "activation_stats" in path.parts and stem.startswith(known):
        return "activation_stats"
    return None


def _threshold(key: str, value: object) -> bool:
    return whole(key) is not None and number(value.get("threshold") if isinstance(value, Mapping) else value) is not None


def _rating(value: object) -> float | None:
    return number(value.get("rating", value.get("score")) if isinstance(value, Mapping) else value)


def threshold_cache(about: Context, path: PurePath, head: Head) -> Rows:
    ablated = path.stem.endswith("_with_ablation")
    reference = path.stem.removeprefix("threshold_cache_").removesuffix("_with_ablation")
    model = about.names.model(reference)
    for key, value in head.items():
        entry = value if isinstance(value, Mapping) else {"threshold": value}
        config = entry.get("config")
        achieved = number(entry.get("achieved_score"))
        named = content_id("reference", about.sha256, "threshold", key)
        yield (
            "thresholds",
            {
                "calibration_id": named,
                "model": model.name,
                "latent": whole(key),
                "threshold": number(entry.get("threshold")),
                "status": "reference-ablated" if ablated else "reference",
                "target": _share(config.get("target_score") if isinstance(config, Mapping) else None),
                "verified_score": achieved,
            },
        )
        yield "provenance", {"sha256": about.sha256, "relation": "thresholds", "id": named}


def _share(value: object) -> float | None:
    found = number(value)
    return found / 100 if found is not None and found > 1 else found


def detectors(about: Context, path: PurePath, head: Head) -> Rows:
    reference = str(head.get("model_name") or path.stem.removeprefix("off_topic_detectors").strip("_"))
    stats = head.get("detector_stats")
    named, seen = content_id("reference", about.sha256, "detectors"), set[int]()
    for rank, item in enumerate(head["off_topic_detectors"]):
        latent = whole(item.get("latent", item.get("feature_index_in_sae")) if isinstance(item, Mapping) else item)
        if latent is None or latent in seen:
            about.problems["detectors that are no latent or stand twice are left out"] += 1
            continue
        seen.add(latent)
        found = stats.get(str(latent)) if isinstance(stats, Mapping) else None
        found = found if isinstance(found, Mapping) else {}
        yield (
            "detectors",
            {
                "set_id": named,
                "model": about.names.model(reference.rsplit("/", 1)[-1]).name,
                "latent": latent,
                "kind": "detector",
                "rank": rank,
                "matched_mean": number(found.get("normal_mean_activation")),
                "matched_active": number(found.get("normal_active_frequency")),
                "mismatched_mean": number(found.get("shuffled_mean_activation")),
                "mismatched_active": number(found.get("shuffled_active_frequency")),
            },
        )
    yield "provenance", {"sha256": about.sha256, "relation": "detectors", "id": named}
    yield from findings(about, "detectors", {k: v for k, v in head.items() if k not in ("off_topic_detectors", "detector_stats")})


def findings(about: Context, kind: str, entries: Mapping[str, Any]) -> Rows:
    for item, content in entries.items():
        text = words(json.dumps(content, ensure_ascii=False, allow_nan=False, default=str)) if _finite(content) else None
        if text is None:
            about.problems[f"{words(item)[:60]!r} holds numbers that are not finite; they are written as text"] += 1
            text = words(json.dumps(_spelt(content), ensure_ascii=False))
        yield "findings", {"sha256": about.sha256, "kind": kind, "item": words(item)[:500], "content": text}


def _finite(content: object) -> bool:
    try:
        json.dumps(content, allow_nan=False, default=str)
        return True
    except ValueError:
        return False


def _spelt(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _spelt(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_spelt(value) for value in content]
    return content if number(content) is not None or not isinstance(content, float) else str(content)


def sequential(about: Context, head: Head) -> Rows:
    activations = head["activations"]
    entries = {f"latent {key}": value for key, value in activations.items()} if isinstance(activations, Mapping) else {}
    yield from findings(about, "sequential_activations", entries | {k: v for k, v in head.items() if k != "activations"})


def regraded(about: Context, path: PurePath, index: int, item: object) -> Rows:
    """One trial graded again; the first judge's verdict comes along, so that judges can be compared on common trials."""
    if not isinstance(item, Mapping):
        about.problems["entries that are not graded trials are left out"] += 1
        return
    latent, source = whole(item.get("feature_index")), PurePath(words(item.get("source_file")))
    if latent is None or not source.name:
        about.problems["graded trials without a latent or a source file are left out"] += 1
        return
    model = about.names.model(naming.model_in(source.stem) or source.stem).name
    first = about.names.judge(naming.judge_folder(path) or "unknown")
    for judge, key in ((about.judge, "new_score"), (first, "original_score")):
        if key in item:
            yield from _regraded(about, item, (source.name, latent, model, judge, key), index)


def _regraded(about: Context, item: Mapping[str, Any], at: tuple[str, int, str, str, str], index: int) -> Rows:
    """The trial as one judge's arm; in every arm it keeps latent, prompt and seed, by which judges are paired."""
    source, latent, model, judge, key = at
    prompt, seed = words(item.get("prompt")), whole(item.get("seed"), 63)
    again = (about.sha256, index) if key == "new_score" else ()  # every new verdict counts, an original once
    named = content_id("reference", "regraded", judge, source, latent, seed, *again)
    yield "trials", {"trial_id": named, "model": model, "prompt": prompt, "seed": seed, "ops": []}
    yield "provenance", {"sha256": about.sha256, "relation": "trials", "id": named}
    yield (
        "members",
        {
            "experiment": "exp07",
            "model": model,
            "arm": judge,
            "scale": about.scale,
            "plan": PLAN,
            "trial_id": named,
            "question": question(prompt),
            "latent": latent,
            "latent_label": words(item.get("feature_label")),
            "boost": None,
            "threshold": None,
        },
    )
    score = item[key]
    attempts, missing = verdict({"attempts": score} if isinstance(score, list) else score, about.problems)
    if isinstance(score, Mapping) and score.get("error"):
        missing = f"judge: {words(score['error'])[:200]}"
    yield "grades", grade(named, latent, judge, attempts, missing, about.written if key == "new_score" else None)


def regrader(path: PurePath, head: Head, names: naming.Names) -> str:
    """Which judge graded again: by its id, its name in the file, or the file's name."""
    stem = naming.STAMP.sub("", path.stem).removeprefix("regraded_")
    told = [str(head.get(key) or "") for key in ("model_id", "model_name")] + [stem]
    known = [names.judge(naming.folded(name)) for name in told if name]
    return next((judge for judge in known if judge in names.judges), stem or known[0])


def episodes(items: Iterator[object]) -> dict[str, object]:
    """Each under its own id, or its place in the list."""
    out: dict[str, object] = {}
    for i, item in enumerate(items):
        told = item.get("episode_id", item.get("id")) if isinstance(item, Mapping) else None
        name = words(told) if told is not None else str(i)
        out[name if name not in out else f"{name} ({i})"] = item
    return out
