"""Trials from before their meaning was recorded: what is proved to mean the same today is counted on, the rest is said.

A run's manifest tells the SAE, the chat family and the model's length that its trials rested on. Where every run of a model that
recorded no meaning tells what is so today, its trials are written once more under today's ids. What cannot be proved stays as it is
and counts for no plan of today.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esr.engine.chat import rendering
from esr.params import Params, resolve
from esr.params.weights import digest
from esr.sae.content import content
from esr.store import renamed
from esr.store.renamed import Counts, Named
from esr.types import Latent, Op, Sampling, Trial, content_id

if TYPE_CHECKING:
    from esr.study.study import Study

log = logging.getLogger(__name__)

RENDERED = {"llama3": "57364b5b07ec5cd4", "gemma2": "ad613d1d00f567ec", "tiny": "d8157c41f0606cdd"}
"""What each family rendered while no meaning was recorded."""
LATER = "the next run looks whether their SAE is today's"

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Older:
    """What became of one model's trials."""

    model: str
    adopted: Counts
    kept: Mapping[str, Counts]
    """By reason."""
    new: bool = False
    """Whether it was done now."""

    @property
    def sentences(self) -> list[str]:
        """What a person should know; empty when every trial counts and did before."""
        n = self.adopted
        now = f"{n.trials:,} older trials of {self.model!r} are counted on ({n.replies:,} replies, {n.grades:,} graded)"
        kept = [
            f"{n.trials:,} older trials of {self.model!r} ({n.replies:,} replies, {n.grades:,} graded) are not counted, for {reason}; "
            "they stay in the store as they are"
            for reason, n in self.kept.items()
        ]
        return [now, *kept] if self.new and n.trials else kept


def adopt(study: "Study") -> Older | None:
    """Counts on what is proved, once; None when every trial's meaning was recorded."""
    if not _any(study):
        return None
    with study.alone("older"):
        mark = study.store.root / "adopted" / f"{_state(study)}.json"
        if (known := _read(mark, study.model)) is not None:
            return known
        proved, kept = sorted_out(study, thorough=True)
        found = Older(study.model, renamed.counts(study.store, list(proved)), kept, new=True)
        if proved:
            renamed.rename(study.store, proved)
        _write(mark, found)
        return found


def told(study: "Study") -> list[str]:
    """What a person should know at the start of a run: what is counted on from now on, and what is not."""
    found = adopt(study)
    return [] if found is None else found.sentences


def outlook(study: "Study") -> Older | None:
    """The same without doing it, and without opening an SAE."""
    if not _any(study):
        return None
    known = _read(study.store.root / "adopted" / f"{_state(study)}.json", study.model)
    if known is not None:
        return known
    proved, kept = sorted_out(study, thorough=False)
    return Older(study.model, renamed.counts(study.store, list(proved)), kept)


def replies(study: "Study", trials: Sequence[Trial]) -> int:
    """Counts on the replies and grades of those of these trials of today that were made before and never recorded as a plan, such as
    those of a threshold search; how many."""
    new = {replace(trial, meaning="").id: trial for trial in trials}
    there = study.store.known("replies", list(new))
    if not there:
        return 0
    proof = Proof.of(study, thorough=True)
    proved = {old: Named(new[old].id, new[old].meant) for old in sorted(there) if not proof.lacks(new[old])}
    if proved:
        renamed.rename(study.store, proved)
        log.warning("%d older replies of %s are counted on", len(proved), study.model)
    return len(proved)


def sorted_out(study: "Study", *, thorough: bool) -> tuple[dict[str, Named], dict[str, Counts]]:
    """Of each trial that is proved, by its old id, what it is called today; the rest counted by reason."""
    proof = Proof.of(study, thorough=thorough)
    proved: dict[str, Named] = {}
    kept: dict[str, list[str]] = {}
    for row in study.store.sql(f"select * from trials where {WHERE} order by trial_id", _whose(study)).to_pylist():
        ops = tuple(Op(**op) for op in row["ops"] or ())
        if {op.sae for op in ops} - {study.spec.sae}:
            continue  # of the model with another SAE; a study with that one sees to them
        trial = _trial(row, ops, study.meaning)
        reason = proof.lacks(trial)
        if row["prefill"]:
            reason = "their turn was begun with text, where today's is with tokens"
        if not reason and replace(trial, meaning="").id != row["trial_id"]:
            reason = "their ids are not those of their content"
        if reason:
            kept.setdefault(reason, []).append(row["trial_id"])
        else:
            proved[row["trial_id"]] = Named(trial.id, trial.meant)
    return proved, {reason: renamed.counts(study.store, ids) for reason, ids in kept.items()}


@dataclass(frozen=True, slots=True)
class Proof:
    """Why what a trial rests on is not proved to be today's; empty: it is."""

    chat: str
    sae: str
    length: str

    @classmethod
    def of(cls, study: "Study", *, thorough: bool) -> "Proof":
        runs = _manifests(study)
        return cls(_chat(study, runs), _sae(study, runs, thorough), _length(study, runs))

    def lacks(self, trial: Trial) -> str:
        return self.chat or (self.sae if trial.ops else "") or (self.length if '"room"' in trial.meant else "")


WHERE = "meaning is null and model = ? and weights = ?"


def _whose(study: "Study") -> list[object]:
    return [study.model, study.weights]


def _any(study: "Study") -> bool:
    unnamed = study.store.sql(
        "select 1 from trials where meaning is null and weights is not null and model = ? limit 1", [study.model]
    )
    return bool(unnamed.num_rows) and bool(study.store.sql(f"select 1 from trials where {WHERE} limit 1", _whose(study)).num_rows)


def _state(study: "Study") -> str:
    """Changes when there is more to adopt, or something else to hold it against."""
    found = study.store.sql(
        f"with older as (select trial_id from trials where {WHERE}) select md5(string_agg(trial_id, ',' order by trial_id)) as ids, "
        "(select count(*) from replies semi join older using (trial_id)) as replies, "
        "(select count(*) from grades semi join older using (trial_id)) as grades, "
        "(select count(*) from members semi join older using (trial_id)) as members from older",
        _whose(study),
    ).to_pylist()
    return content_id("older", study.model, study.weights, study.meaning, found, _manifests(study))


def _trial(row: Mapping[str, Any], ops: tuple[Op, ...], meaning: str) -> Trial:
    return Trial(
        model=row["model"],
        weights=row["weights"],
        meaning=meaning,
        prompt=row["prompt"],
        prompt_format=row["prompt_format"],
        seed=row["seed"],
        sampling=Sampling(row["temperature"], row["top_p"], row["repetition_penalty"], row["max_tokens"]),
        ops=ops,
        scope=row["scope"],
        latent=Latent(-1),
    )


def _manifests(study: "Study") -> list[Manifest | None]:
    """Of the model's runs that recorded no meaning; None: the run has none."""
    found = study.store.sql("select manifest from runs where model = ? order by run_id", [study.model])["manifest"].to_pylist()
    told = [None if text is None else json.loads(text) for text in found]
    return [one for one in told if one is None or "meaning" not in one.get("model", {})]


def _chat(study: "Study", runs: Sequence[Manifest | None]) -> str:
    """Why the rendering is not proved to be today's; empty: it is."""
    family = study.spec.family
    if not runs or None in runs:
        return "no run tells what they were made with" if not runs else "a run of them does not tell what it was made with"
    was = {_at(one, "params", "content", "models", study.model, "family") for one in runs}
    if was != {family}:
        return f"their chat family was {' and '.join(sorted(map(str, was)))} and is {family}"
    return "" if rendering(family) == RENDERED.get(family) else f"the chat family {family} is rendered otherwise today"


def _length(study: "Study", runs: Sequence[Manifest | None]) -> str:
    was = {_at(one, "params", "content", "models", study.model, "max_model_len") for one in runs}
    return "" if was == {study.spec.max_model_len} else "the model's length, which may have cut them, was another"


def _sae(study: "Study", runs: Sequence[Manifest | None], thorough: bool) -> str:
    """By the hash of the folder where it was one; else by that of the SAE as the engine loaded it."""
    name = study.spec.sae
    named = [one for one in runs if one is not None and _at(one, "sae", "name") == name]
    folders, loaded = set(), set()
    for one in named:
        repo = _at(one, "params", "content", "saes", name, "repo")
        local = _at(one, "params", "content", "saes", name, "loader") == "folder"
        hash_ = _at(one, "sae", "sha256", repo) if local else None
        opened = _at(one, "engine", f"sae/{name}")
        if hash_:
            folders.add(hash_)
        elif opened:
            loaded.add(opened)
        elif _at(one, "engine"):
            return f"a run of them does not tell what the SAE {name!r} held"
    if not folders and not loaded:
        return f"no run tells what the SAE {name!r} held"
    if folders and folders != {_folder(study.params, name)}:
        return f"the SAE {name!r} held something else when they were made"
    if loaded and not thorough:
        return LATER
    if loaded and loaded != {_loaded(study.params, name)}:
        return f"the SAE {name!r} held something else when they were made"
    return ""


def _folder(params: Params, name: str) -> str:
    spec = params.sae(name)
    return digest(resolve(spec.repo or "")) if spec.loader == "folder" else content(spec)


def _loaded(params: Params, name: str) -> str:
    from esr.sae import open_sae

    return open_sae(params, name).sha256


def _at(tree: Any, *path: Any) -> Any:
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _read(mark: Path, model: str) -> Older | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(mark.read_text(encoding="utf-8"))
        return Older(model, Counts(**told["adopted"]), {reason: Counts(**n) for reason, n in told["kept"].items()})
    return None


def _write(mark: Path, found: Older) -> None:
    """Aside and renamed; it is not the truth, and where it is lost the same is found again."""
    mark.parent.mkdir(parents=True, exist_ok=True)
    new = mark.with_suffix(".new")
    new.write_text(json.dumps(asdict(found), ensure_ascii=False), encoding="utf-8")
    new.replace(mark)
