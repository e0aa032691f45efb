"""Measure the judge `topical` and the restart detector on real English, and hold them against what was read.

    python scripts/topical_accuracy.py                  writes docs/benchmarks/topical.json and prints it
    python scripts/topical_accuracy.py --replies FILE   of other replies: lines of JSON (or .gz) with question, boost, subject or latent, text
    python scripts/topical_accuracy.py --store DIR      also against the lexical judge, on the trials of `tiny` that DIR holds

Replies of boost 0 are unsteered, and none of them is in the reference. What was read is docs/benchmarks/topical_grades.csv.
"""

import argparse
import csv
import gzip
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd

from esr.count import agreement, contrasts, intervals
from esr.judge import JudgeQuestion
from esr.judge.lexical.attempts import attempts
from esr.judge.lexical.restarts import restarts
from esr.judge.topical import Reference, Topical
from esr.store import Store
from esr.types import Latent

HOME = Path(__file__).resolve().parent.parent
BENCHMARKS = HOME / "docs" / "benchmarks"
BEFORE, AFTER = (
    "The ship sailed along the coast and the whales sang below the waves.",
    "First, gather what you need. Then follow each step.",
)
ON_TOPIC = 50
SEED = 1


def share(hits: int, n: int) -> dict[str, Any]:
    """Wilson's interval; the sentences are taken for independent."""
    if not n:
        return {"n": 0}
    low, high = intervals.score(np.array(hits / n), np.array(float(n)), np.array(1.96))
    return {"n": n, "value": round(hits / n, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def mean(found: contrasts.Mean) -> dict[str, Any]:
    bounds = found.interval
    return {
        "n": found.n,
        "value": rounded(found.value),
        **({"low": rounded(bounds.low), "high": rounded(bounds.high)} if bounds else {"no interval": found.no_interval}),
    }


def measured(found: agreement.Measured) -> dict[str, Any]:
    bounds = found.interval
    return {
        "value": rounded(found.value),
        **({"low": rounded(bounds.low), "high": rounded(bounds.high)} if bounds else {"no interval": found.no_interval}),
    }


def rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)


def sentences() -> dict[str, Any]:
    with (HOME / "tests" / "data" / "restart_sentences.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = [bool(restarts(f"{BEFORE} {row['sentence']} {AFTER}")) for row in rows]

    def of(**wanted: str) -> list[bool]:
        return [hit for hit, row in zip(found, rows, strict=True) if all(row[key] == value for key, value in wanted.items())]

    def counted(**wanted: str) -> dict[str, Any]:
        said, calm = of(restart="yes", **wanted), of(restart="no", **wanted)
        return {
            "recall": share(sum(said), len(said)),
            "false alarms": share(sum(calm), len(calm)),
            "precision": share(sum(said), sum(said) + sum(calm)),
        }

    return {"all": counted(), "seen": counted(part="seen", source="written"), "unseen": counted(part="unseen", source="written"),
            "sentences of smollm2": counted(source="smollm2")}  # fmt: skip


def replies(judge: Topical, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    plain = [row for row in rows if not row["boost"]]
    rng, questions = Random(SEED), list(judge.reference.known)
    named = [row["question"] for row in plain]
    whole, begun = ([judge.nearest(row["text"][:cut]) == row["question"] for row in plain] for cut in (None, 400))
    others = [judge.score(rng.choice([q for q in questions if q != row["question"]]), row["text"]) for row in plain]
    halves = [halved(judge, row, rng.choice(plain)) for row in plain]
    mixed = [one for one in halves if one is not None]
    out: dict[str, Any] = {
        "right question": mean(contrasts.share(whole, named)),
        "right question by the first 400 characters": mean(contrasts.share(begun, named)),
        "under another question": quartiles(others),
        "off topic up to the middle": {
            "mixed": quartiles([one[1] for one in mixed]),
            "whole": quartiles([one[0] for one in mixed]),
        },
        "by boost": {},
        "replies with a restart": sum(bool(restarts(row["text"])) for row in rows),
        "replies": len(rows),
    }
    for boost in sorted({row["boost"] for row in rows}):
        some = [row for row in rows if row["boost"] == boost]
        by = [str(row.get("subject") or row.get("latent") or row["question"]) for row in some]
        asked = [row["question"] for row in some]
        scores = [judge.score(row["question"], row["text"]) for row in some]
        right = [judge.nearest(row["text"]) == row["question"] for row in some]
        out["by boost"][str(boost)] = {
            **quartiles(scores), "mean": mean(contrasts.mean(scores, by, None if by == asked else asked)),
            "right question": mean(contrasts.share(right, by, None if by == asked else asked)),
        }  # fmt: skip
    return out


def halved(judge: Topical, row: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, float] | None:
    """The whole reply's score, and that of one that begins with as much of another question's."""
    mine, theirs = str(row["text"]), str(other["text"])
    if row["question"] == other["question"] or min(len(mine), len(theirs)) < 300:
        return None
    half = min(len(mine), len(theirs)) // 2
    return judge.score(row["question"], mine), judge.score(row["question"], f"{theirs[:half]} {mine[-half:]}")


def quartiles(scores: Sequence[float]) -> dict[str, Any]:
    low, middle, high = (round(float(q), 1) for q in np.percentile(scores, [25, 50, 75]))
    return {"n": len(scores), "median": middle, "quartiles": [low, high]}


def read(judge: Topical) -> dict[str, Any]:
    """Against the grades of a reader who saw question and reply and neither arm nor score."""
    with (BENCHMARKS / "topical_grades.csv").open(newline="", encoding="utf-8") as file:
        rows = pd.DataFrame(list(csv.DictReader(file)))
    found = [[(span, reply[span.start : span.end]) for span in attempts(reply)] for reply in rows["reply"]]
    scores = [judge.score(q, some[0][1]) if some else 0.0 for q, some in zip(rows["question"], found, strict=True)]
    grades = rows["grade"].astype(float)
    both = pd.DataFrame(
        {
            "latent": rows["subject"].where(rows["subject"] != "", "unsteered " + rows["question"]), "question": rows["question"],
            "multi_a": grades >= ON_TOPIC, "multi_b": np.array(scores) >= ON_TOPIC,
            "n_attempts_a": rows["attempts"].astype(int), "n_attempts_b": [len(some) for some in found],
            "corrected_a": False, "corrected_b": False, "first_score_a": grades, "first_score_b": scores,
        }
    )  # fmt: skip
    told = agreement.measures(both, 0.95)
    error = both["first_score_b"] - both["first_score_a"]
    arms = {
        str(boost): {"n": len(some), "read": rounded(both["first_score_a"][some.index].mean()), "judge": rounded(both["first_score_b"][some.index].mean()),
                     "error": mean(contrasts.mean(error[some.index], both["latent"][some.index], both["question"][some.index]))}
        for boost, some in rows.assign(boost=rows["boost"].astype(int)).groupby("boost")
    }  # fmt: skip
    return {
        "n": len(rows), "on topic, kappa": measured(told["kappa"]), "on topic, agree": measured(told["multi"]),
        "two attempts or more": {"read": int((both["n_attempts_a"] > 1).sum()), "judge": int((both["n_attempts_b"] > 1).sum())},
        "attempts, agree": measured(told["attempts"]), "spearman": measured(told["spearman"]), "pearson": measured(told["pearson"]),
        "mean absolute error": mean(contrasts.mean(error.abs(), both["latent"], both["question"])),
        "mean error": mean(contrasts.mean(error, both["latent"], both["question"])), "by boost": arms,
    }  # fmt: skip


def against_lexical(store: Store) -> dict[str, Any]:
    """The trials of `tiny`, under a reference of its own."""
    judge = Topical("topical", Reference.read(HOME / "models" / "tiny-reference.json.gz"))
    rows = store.sql(
        "select distinct on (o.trial_id, o.latent) o.trial_id, o.latent, o.question, o.n_attempts, o.multi, o.corrected, o.first_score, t.prompt, r.text "
        "from outcomes o join trials t using (trial_id) join replies r using (trial_id) where o.judge = 'lexical' and o.model = 'tiny' and r.text is not null "
        "order by o.trial_id, o.latent"
    ).to_pandas()
    asked = [
        JudgeQuestion(trial_id=row.trial_id, prompt=row.prompt, reply=row.text, latent=Latent(int(row.latent)))
        for row in rows.itertuples()
    ]
    start = time.process_time()
    grades = judge.grades(asked)
    seconds = time.process_time() - start
    there = np.array([bool(grade.attempts) for grade in grades])
    scores = [[one.score for one in grade.attempts] for grade in grades]
    both = pd.DataFrame(
        {
            "latent": rows["latent"], "question": rows["question"], "multi_a": rows["multi"], "n_attempts_a": rows["n_attempts"],
            "corrected_a": rows["corrected"], "first_score_a": rows["first_score"], "multi_b": [len(one) > 1 for one in scores],
            "n_attempts_b": [len(one) for one in scores], "corrected_b": [len(one) > 1 and one[-1] > one[0] for one in scores],
            "first_score_b": [one[0] if one else 0.0 for one in scores],
        }
    )[there].dropna()  # fmt: skip
    told = agreement.measures(both, 0.95)
    rates = {
        name: rounded(both[name].astype(float).mean())
        for name in ("multi_a", "multi_b", "corrected_a", "corrected_b", "first_score_a", "first_score_b")
    }
    return {"n": len(both), "a": "lexical", "b": "topical", "replies per second on one core": round(len(asked) / seconds), **rates,
            **{name: measured(told[name]) for name in ("attempts", "kappa", "direction", "spearman", "pearson")}}  # fmt: skip


def lines(file: Path) -> list[dict[str, Any]]:
    raw = file.read_bytes()
    text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode()
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--replies", type=Path, default=BENCHMARKS / "topical_replies.jsonl.gz")
    ask.add_argument("--reference", type=Path, default=HOME / "models" / "smollm2-reference.json.gz")
    ask.add_argument("--store", type=Path)
    ask.add_argument("--out", type=Path, default=BENCHMARKS / "topical.json")
    asked = ask.parse_args()
    judge = Topical("topical", Reference.read(asked.reference))
    before = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.is_file() else {}
    found = {
        "judge": judge.prompt_hash, "reference": judge.reference.sha256, "made": dict(judge.reference.made),
        "replies to a question": sorted({one.replies for one in judge.reference.known.values()}),
        "sentences": sentences(), "replies": replies(judge, lines(asked.replies)), "read": read(judge),
    }  # fmt: skip
    against = against_lexical(Store(asked.store)) if asked.store else before.get("against lexical, on tiny")
    found |= {"against lexical, on tiny": against} if against else {}
    asked.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
