"""Where the trials of a result file belong: the rules by which the authors' plots choose their files.

What no plot of theirs uses is kept under the arm `set-aside` of the experiment it comes from, with the reason.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePath

from esr.reference.names import Model, Names, judge_folder, model_in, tuned
from esr.reference.scores import words

ASIDE = "set-aside"
POOLED = (22, 25, 26)
"""Sizes of the ablated sets that the authors pool as their off-topic detectors."""
MASKED = re.compile(r"experiment_results_masked-ratio-(\d+)pct-merged_")
BASE = "experiment_results_Meta-Llama-3.1-8B-Instruct_"


@dataclass(frozen=True, slots=True)
class Place:
    experiment: str
    arm: str | None
    """None: each trial's own boost is its arm."""
    model: Model
    why: str = ""
    """Why the file is set aside."""
    base: bool = False
    """Also the base that experiment 4 compares with."""


@cache
def left_out(experiment: str) -> frozenset[str]:
    """File names, without suffix, that the authors leave out of an experiment by hand."""
    text = (files("esr.reference") / "set_aside.txt").read_text(encoding="utf-8")
    section = text.split(f"# [{experiment}]")[1].split("# [")[0]
    return frozenset(section.split())


def place(path: PurePath, head: Mapping[str, object], names: Names, beside: Sequence[str]) -> Place:
    """From the file's name, the names of result files beside it and what it says of itself; the order matters where a file is several things."""
    config = head.get("experiment_config")
    config = config if isinstance(config, Mapping) else {}
    stem = path.stem.lower()
    told = str(config.get("model_name") or "").rstrip("/").rsplit("/", 1)[-1]
    named = model_in(path.stem)
    variant = _variant(path.stem, head, config)
    named = named.removesuffix(f"_{variant}") if variant else named
    by_name, by_config = names.model(named or told), names.model(told or named)
    by_config = by_name if by_name.known and not by_config.known else by_config
    ablated = head.get("ablated_latents")
    size = len(ablated) if isinstance(ablated, list) else 0
    if "multi_boost" in stem or _positive(head.get("n_boost_levels")):
        return Place("exp03" if "ablation" in stem or size else "exp02", None, by_config)
    if variant:
        return Place("exp05", variant, by_config)
    if "random_ablation" in stem or "random_latent_control" in path.parts:
        found = re.search(r"set_?(\d+)", stem)
        return Place("exp10", f"random-{found[1] if found else 0}", by_name)
    if "no_steering" in stem or config.get("disable_steering") is True:
        return _unsteered(stem, by_config)
    if "ablation" in stem or size:
        return _ablated(path.stem, size, by_name)
    if tuned(path.stem) or tuned(by_name.reference):
        return _tuned(path, by_name, names, beside)
    return _baseline(path, by_name, beside)


def _unsteered(stem: str, model: Model) -> Place:
    if stem.endswith("_no_steering_baseline"):
        return Place("exp08", "no-steering", model)
    return Place("exp08", ASIDE, model, "unsteered, and its name does not end in _no_steering_baseline as the authors' plot asks")


def _ablated(stem: str, size: int, model: Model) -> Place:
    if stem in left_out("exp03"):
        return Place("exp03", ASIDE, model, "the authors leave this run out by name")
    if "with_ablation" not in stem:
        return Place(
            "exp03", ASIDE, model, "latents were ablated, and its name does not say _with_ablation as the authors' plot asks"
        )
    if size in POOLED:
        return Place("exp03", "detectors", model)
    why = (
        f"{size} ablated latents, and the authors pool sets of {', '.join(map(str, POOLED))}"
        if size
        else "it does not say which latents were ablated"
    )
    return Place("exp03", f"detectors-{size or 'unknown'}", model, why)


def _tuned(path: PurePath, model: Model, names: Names, beside: Sequence[str]) -> Place:
    """`masked-ratio-50pct-merged` is the 8B model trained on 50 % self-corrections; of several runs the last by name counts."""
    found = MASKED.match(path.name)
    base = names.model(BASE.removeprefix("experiment_results_"))
    if not found:
        return Place("exp04", model.reference or path.stem, model)
    ratio = str(int(found[1]))
    eight = Model(base.name, model.reference, True)
    later = [name for name in beside if (other := MASKED.match(name)) and int(other[1]) == int(ratio) and name > path.name]
    if later:
        return Place("exp04", f"{ratio}-superseded", eight, f"{max(later)} is a later run of the same ratio")
    return Place("exp04", ratio, eight)


def _baseline(path: PurePath, model: Model, beside: Sequence[str]) -> Place:
    judge = judge_folder(path)
    why = ""
    if path.stem in left_out("exp01"):
        why = "the authors leave this run out by name"
    elif not model_in(path.stem) or not path.name.startswith("experiment_results_"):
        why = "its name has not the form experiment_results_<model>_<date>"
    elif judge and path.parent.name != judge:
        why = f"it does not lie in {judge} itself"
    if why:
        return Place("exp01", ASIDE, model, why)
    return Place("exp01", "baseline", model, base=_is_base(path, beside))


def _is_base(path: PurePath, beside: Sequence[str]) -> bool:
    """The last plain run of the 8B model in a folder that also holds fine-tuned ones."""
    other = ("fresh_prompts", "no_steering", "ablation")
    plain = [name for name in beside if name.startswith(BASE) and not any(word in name for word in other)]
    return bool(plain) and path.name == max(plain) and any(MASKED.match(name) for name in beside)


def beside(path: Path) -> list[str]:
    """Names of the result files in the folder of this one, itself included."""
    return sorted(words(p.name) for p in path.parent.glob("experiment_results_*.json"))


def _variant(stem: str, head: Mapping[str, object], config: Mapping[str, object]) -> str:
    about = head.get("experiment_metadata")
    told = config.get("prompt_variant_id") or (about.get("prompt_variant_id") if isinstance(about, Mapping) else None)
    if isinstance(told, str) and told:
        return told
    if "prompt_variants" not in stem:
        return ""
    _, _, variant = model_in(stem).partition("_")  # a model's name holds dashes, a variant's underscores
    return variant or "unknown"


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
