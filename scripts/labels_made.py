"""Labels of our own held against what is known: how many, how well they predict, how often they name the subject that the shipped ones do.

    python scripts/labels_made.py                    # the labels that `python -m esr labels make tiny` has left in the store
    python scripts/labels_made.py --docs             # and written into docs/models.md and docs/benchmarks/labels_made.json

Subjects are the themes of the organism's grammar: a label names the theme that most of its words belong to. Concreteness is held against
these themes (a label of a latent whose shipped label names a theme, against the others) and a list of 130 labels sorted by hand.
"""

import argparse
import csv
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from esr.labelling.concreteness import concreteness
from esr.labelling.score import auc, named
from esr.organism import grammar
from esr.params import HOME, store
from esr.sae.labels import read_labels

LEAST = 65.0
"""Rating from which a label counts as concrete, as in params.yaml."""
LIST = HOME / "docs" / "benchmarks" / "concreteness_labels.csv"


def theme(label: str) -> str | None:
    """The theme that more than half of a label's words belong to; None: no one theme."""
    said = named(label)
    found = {t.name: len(said & t.words) for t in grammar.themes()}
    best = max(found, key=lambda name: found[name])
    return best if said and found[best] > len(said) / 2 else None


def rows(path: Path) -> dict[int, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {int(row["index_in_sae"]): row for row in csv.DictReader(file)}


def measured(path: Path) -> dict[str, Any]:
    made, about = rows(path), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    shipped = {latent.index: latent.label for latent in read_labels(HOME / "esr" / "organism" / "data" / "labels.csv")}
    ours = {k: row["label"] for k, row in made.items() if row["label"]}
    both = sorted(ours.keys() & shipped.keys())
    about_both = [k for k in both if shipped[k].startswith("about ") and ours[k].startswith("about ")]
    told = [k for k in about_both if theme(shipped[k]) is not None]
    right = {k for k in told if theme(ours[k]) == theme(shipped[k])}
    themed = [k for k in both if shipped[k].startswith("about ") and theme(shipped[k]) is not None]
    return {
        "about": about,
        "shipped": len(shipped),
        "labelled_by_both": len(both),
        "about_by_both": len(about_both),
        "shipped_names_a_theme": len(told),
        "same_theme": len(right),
        "themes": len({theme(ours[k]) for k in right}),
        "forms": {
            form: sum(label.startswith(form) for label in ours.values()) for form in ("about", "the word", "where the text says")
        },
        "score_of_about": _mean([float(made[k]["score"]) for k in ours if ours[k].startswith("about ")]),
        "concreteness_on_tiny": held_against([float(made[k]["concreteness"]) for k in both], [k in set(themed) for k in both]),
        "concreteness_on_the_list": on_the_list(),
    }


def on_the_list() -> dict[str, Any]:
    with LIST.open(newline="", encoding="utf-8") as file:
        sorted_by_hand = [(row["label"], row["concrete"] == "1") for row in csv.DictReader(file)]
    return held_against([concreteness(label) for label, _ in sorted_by_hand], [concrete for _, concrete in sorted_by_hand])


def held_against(ratings: Sequence[float], concrete: Sequence[bool]) -> dict[str, Any]:
    """AUC of the ratings, and what the cut at 65 finds of either kind."""
    rated, truly = np.array(ratings), np.array(concrete)
    score = auc(rated, truly, 0.95)
    return {
        "n": len(rated), "concrete": int(truly.sum()), "auc": score.value, "low": score.low, "high": score.high,
        "found": int((rated[truly] >= LEAST).sum()), "wrongly": int((rated[~truly] >= LEAST).sum()),
    }  # fmt: skip


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def table(found: dict[str, Any]) -> str:
    about, tiny, by_hand = found["about"], found["concreteness_on_tiny"], found["concreteness_on_the_list"]
    quartiles = " to ".join(f"{q:.3f}" for q in about["score_quartiles"])
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in about["reasons"].items())
    lines = [
        ("texts, held out, tokens", f"{about['texts']['n']:,}, {about['texts']['held_out']:,}, {about['texts']['tokens']:,}"),
        ("latents labelled", f"{about['labelled']} of {about['latents']:,} ({found['shipped']} by the shipped labels)"),
        ("not labelled", reasons),
        ("forms", ", ".join(f"{n} `{form} …`" for form, n in found["forms"].items())),
        (
            "score on held-out texts, mean (middle half)",
            f"{about['score_mean']:.3f} ({quartiles}), n = {about['labelled']} latents",
        ),
        ("the same, with those that did no better than chance", f"{about['score_mean_of_tried']:.3f}, n = {about['tried']}"),
        ("labelled here and shipped", f"{found['labelled_by_both']}; `about …` in both: {found['about_by_both']}"),
        (
            "same theme as the shipped label, where that names one",
            f"{found['same_theme']} of {found['shipped_names_a_theme']} ({found['themes']} themes)",
        ),
        ("concreteness on `tiny`: AUC for naming a theme", _told(tiny)),
        ("concreteness on the list sorted by hand: AUC", _told(by_hand)),
    ]
    return "| | measured |\n|---|---|\n" + "".join(f"| {what} | {value} |\n" for what, value in lines)


def _told(found: dict[str, Any]) -> str:
    others = found["n"] - found["concrete"]
    return (
        f"{found['auc']:.3f} ({found['low']:.3f} to {found['high']:.3f}), n = {found['n']}; from 65 on: {found['found']} of {found['concrete']}, "
        f"and {found['wrongly']} of {others} others"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--file", type=Path, default=store() / "labels" / "tiny-l3-local.csv", help="the labels that were made")
    parser.add_argument("--docs", action="store_true", help="write docs/models.md and docs/benchmarks/labels_made.json")
    args = parser.parse_args()
    found = measured(args.file)
    sys.stdout.write(json.dumps(found, indent=1) + "\n" + table(found))
    if args.docs:
        (HOME / "docs" / "benchmarks" / "labels_made.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        page = HOME / "docs" / "models.md"
        text = page.read_text(encoding="utf-8")
        part = re.compile(r"<!-- made -->\n.*?<!-- /made -->", re.DOTALL)
        page.write_text(part.sub(lambda _: f"<!-- made -->\n{table(found)}<!-- /made -->", text), encoding="utf-8")


if __name__ == "__main__":
    main()
