"""Labels made: texts, readings, evidence, a label and a score for every latent that has enough of them, and the file that a study reads.

Whatever is done is kept as it is done, texts and readings in the store, a judge's answers among the judges' answers, so the same call
goes on where it was stopped.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from esr import prompts
from esr.errors import DataError
from esr.judge.estimate import CostEstimate, estimate_naming
from esr.judge.open import open_namer
from esr.labelling import evidence, local, readings, texts
from esr.labelling.evidence import Evidence
from esr.labelling.labellers import SHOWN, TESTED, Asked, Corpus, Labeller, Local
from esr.labelling.score import Score
from esr.labelling.texts import Text
from esr.params import Params
from esr.sae.content import content
from esr.sae.labels import table
from esr.study.batches import cut
from esr.study.plan import stream
from esr.study.progress import Tick
from esr.types import content_id
from esr.whole import place

if TYPE_CHECKING:
    from esr.study.study import Study

LEAST = 5
"""Texts of either half in which a latent must fire, and held-out ones in which it must not, to be labelled at all."""
AT_ONCE = 128
"""Latents that a labeller is given at a time."""
COLUMNS = ("index_in_sae", "label", "score", "score_low", "score_high", "n", "fired", "method", "concreteness", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What labels are made from, and by whom."""

    texts: Path | None = None
    """A person's; None: the model's own replies."""
    subjects: Sequence[str] = ()
    """That the model is asked about; empty: the list that is shipped."""
    replies: int = 3
    """To every prompt."""
    by: str = local.NAME
    """`local`, or a judge of params.yaml."""
    latents: int | None = None
    """At most so many, drawn; None: every one that can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One latent of the file. Without a label, the reason."""

    latent: int
    label: str = ""
    score: Score | None = None
    concreteness: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    lines: Sequence[Line]
    about: dict[str, Any]
    """What they were made from, by whom, and what came of it."""
    curable: bool
    """The labeller did not answer for some; the same call again may bring them."""


def corpus(study: "Study", wanted: Wanted) -> Corpus:
    """The texts and what fires in them, made or from the store."""
    make: Callable[[], Iterable[Text]]
    if wanted.texts is not None:
        rows = texts.given(wanted.texts)
        key = texts.key(study, [[row.text, row.prompt, row.group] for row in rows])
        make = partial(texts.read_by, study, rows)
    else:
        asked = texts.trials(study, wanted.subjects or prompts.lines("label_subjects"), wanted.replies)
        key = texts.key(study, [trial.id for trial in asked])
        study.progress.expect("texts", len(asked))
        make = partial(texts.own, study, asked)
    folder = study.store.root / "labels" / "made" / key
    if not (folder / "texts.jsonl").is_file():
        texts.keep(folder / "texts.jsonl", make())
    found = texts.kept(folder / "texts.jsonl")
    if len({text.held for text in found}) < 2:
        raise DataError("no text is left to score labels on, or to make them from; give more texts")
    m = study.spec
    peaks = folder / f"peaks-{content_id(m.read_layer, content(study.params.sae(m.sae)), length=8)}"
    readings.read(study, found, peaks)
    held = np.array([text.held for text in found])
    seen = evidence.gather(lambda: readings.parts(peaks), study.params.sae(m.sae).d_sae, held)
    return Corpus(key, found, seen, study.params.protocol.confidence, study.params.seed)


def unfit(found: Evidence, latent: int) -> str:
    """Why a latent cannot be labelled from this evidence; empty: it can."""
    seen, unseen = int(found.fired[latent]), int(found.fired_held[latent])
    if not seen:
        return "dead: never active in the texts"
    if seen < LEAST or unseen < LEAST:
        return f"too rare: fires in {seen} texts and {unseen} held-out ones, and {LEAST} of each are needed"
    if found.n_held - unseen < LEAST:
        return f"too common: fires in all but {found.n_held - unseen} of {found.n_held} held-out texts"
    return ""


def drawn(study: "Study", found: Evidence, most: int | None) -> tuple[list[int], dict[int, str]]:
    """The latents to label, and why the others are not."""
    reasons = {latent: reason for latent in range(len(found.fired)) if (reason := unfit(found, latent))}
    fit = [latent for latent in range(len(found.fired)) if latent not in reasons]
    if most is None or most >= len(fit):
        return fit, reasons
    chosen = sorted(stream(study.params, "labelled").sample(fit, most))
    return chosen, reasons | dict.fromkeys(set(fit) - set(chosen), "not drawn")


def cost(params: Params, by: str, of: Corpus, latents: Sequence[int]) -> CostEstimate | None:
    """What a judge would take at most; None: the local labeller takes nothing."""
    if by == local.NAME:
        return None
    return estimate_naming(params, by, [of.shown(latent, SHOWN) for latent in latents], 2 * TESTED)


def make(study: "Study", wanted: Wanted, tell: Callable[[str], None], *, plan: bool = False) -> Made | None:
    """Labels for the model's SAE; `tell` hears what it will take before anything is asked for. `plan`: no further than that."""
    if wanted.by != local.NAME and not plan:
        open_namer(study.params, wanted.by, store=study.store.root)  # a key that is not set is said before any work
    of = corpus(study, wanted)
    latents, reasons = drawn(study, of.evidence, wanted.latents)
    tell(_foreseen(study, wanted, of, latents))
    if plan:
        return None
    by = labeller(study, wanted.by, of)
    lines = {latent: Line(latent=latent, reason=reason) for latent, reason in reasons.items()}
    study.progress.expect("label", len(latents))
    for some in cut(latents, AT_ONCE):
        study.progress.go_on()
        lines |= {line.latent: line for line in labelled(by, some)}
        study.progress.tick(Tick("label", len(some)))
    ordered = [lines[latent] for latent in sorted(lines)]
    return Made(lines=ordered, about=about(study, by, of, ordered), curable=by.curable)


def labeller(study: "Study", name: str, of: Corpus) -> Labeller:
    if name == local.NAME:
        return Local(of)
    return Asked(of, open_namer(study.params, name, store=study.store.root, budget=f"labels/{of.key}/{name}"))


def labelled(by: Labeller, latents: Sequence[int]) -> list[Line]:
    """A label that does no better than chance on what it was not made from is none; what was tried is said."""
    said = dict(zip(latents, by.labels(latents), strict=True))
    found = [Line(latent=latent, reason=one.missing) for latent, one in said.items() if one.missing]
    tried = {latent: one.label for latent, one in said.items() if not one.missing}
    verdicts = dict(zip(tried, by.scores(list(tried), list(tried.values())), strict=True))
    good = {k: tried[k] for k, verdict in verdicts.items() if verdict.score and verdict.score.better_than_chance}
    ratings = dict(zip(good, by.ratings(list(good), list(good.values())), strict=True))
    for latent, label in tried.items():
        score, missing = verdicts[latent].score, verdicts[latent].missing
        if latent in good:
            found.append(Line(latent=latent, label=label, score=score, concreteness=ratings[latent]))
        else:
            found.append(Line(latent=latent, score=score, reason=f"{missing or 'no better than chance'}: {label}"))
    return found


def about(study: "Study", by: Labeller, of: Corpus, lines: Sequence[Line]) -> dict[str, Any]:
    sae = study.params.sae(study.spec.sae)
    scores = sorted(line.score.value for line in lines if line.label and line.score)
    tried = [line.score.value for line in lines if line.score]
    return {
        "sae": sae.name, "sae_content": content(sae), "model": study.model, "weights": study.weights, "engine": study.backend,
        "read_after_block": study.spec.read_layer,
        "texts": {
            "key": of.key, "hash": content_id([[list(text.prompt_ids), list(text.ids)] for text in of.texts]), "n": len(of.texts),
            "held_out": of.evidence.n_held, "groups": len({text.group for text in of.texts}), "tokens": sum(len(text.ids) for text in of.texts),
        },
        "labeller": by.name, "labeller_hash": by.hash, "method": by.method, "fires_at": evidence.FIRES, "least": LEAST,
        "latents": len(lines), "labelled": len(scores), "tried": len(tried),
        "reasons": dict(Counter(line.reason.partition(":")[0] for line in lines if line.reason).most_common()),
        "score_mean": fmean(scores) if scores else None, "score_median": median(scores) if scores else None,
        "score_quartiles": [float(q) for q in np.quantile(scores, [0.25, 0.75])] if scores else None,
        "score_mean_of_tried": fmean(tried) if tried else None,
        "concrete": sum((line.concreteness or 0.0) >= 65 for line in lines),
    }  # fmt: skip


def write(path: Path, made: Made) -> Path:
    """The labels, and what they were made from in a JSON beside them, which is returned; each put in place in one step."""
    place(path, table(COLUMNS, (_row(line) for line in made.lines)))
    beside = path.with_suffix(".json")
    place(beside, json.dumps(made.about, indent=1, ensure_ascii=False) + "\n")
    return beside


def _row(line: Line) -> list[object]:
    s = line.score
    score = ["", "", "", "", "", ""] if s is None else [f"{s.value:.4f}", f"{s.low:.4f}", f"{s.high:.4f}", s.n, s.fired, s.method]
    rating = "" if line.concreteness is None else f"{line.concreteness:g}"
    return [line.latent, line.label, *score, rating, line.reason]


def _foreseen(study: "Study", wanted: Wanted, of: Corpus, latents: Sequence[int]) -> str:
    size = evidence.memory(len(of.evidence.fired), of.evidence.n_held) / 2**20
    told = (
        f"{len(of.texts):,} texts, {of.evidence.n_held:,} of them held out; {len(latents):,} of {len(of.evidence.fired):,} latents "
        f"fire often enough to be labelled; evidence in {size:,.0f} MiB"
    )
    asked = cost(study.params, wanted.by, of, latents)
    if asked is None:
        return f"{told}; labelled here, nothing is paid"
    paid = "price unknown" if asked.cost is None else f"about ${asked.cost:,.2f}"
    limit = study.params.judging.max_cost
    return (
        f"{told}; {wanted.by}: at most {asked.calls:,} calls, {asked.input_tokens:,} tokens in, {asked.output_tokens:,} out, {paid}"
        + (f", and no more than ${limit:,.2f}" if limit is not None else ", no limit; --max-cost sets one")
    )
