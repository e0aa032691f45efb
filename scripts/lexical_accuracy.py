"""Measure the lexical judge: hand-checkable cases, the shipped models' own corpus with its known segments, and speed.

python scripts/lexical_accuracy.py      writes docs/benchmarks/lexical.json and prints the tables of docs/lexical.md
"""

import json
import statistics
import time
from collections import Counter
from pathlib import Path

from esr.judge import JudgeQuestion
from esr.judge.lexical import Lexical, score
from esr.judge.lexical.restarts import restarts
from esr.organism import corpus, grammar
from esr.types import Latent

HOME = Path(__file__).resolve().parent.parent
ROWS, SEED, SPEED = 20_000, 11, 20_000


def cases() -> dict[str, dict[str, int]]:
    lines = (HOME / "tests" / "data" / "lexical_cases.jsonl").read_text(encoding="utf-8").splitlines()
    out: dict[str, Counter[str]] = {}
    for case in map(json.loads, lines):
        attempts = (
            Lexical()
            .grades([JudgeQuestion(trial_id="", prompt=case["prompt"], reply=case["reply"], latent=Latent(-1))])[0]
            .attempts
        )
        count = out.setdefault(case["kind"], Counter())
        split = len(attempts) == case["attempts"]
        count["cases"] += 1
        count["attempts right"] += split
        banded = all(lo <= a.score <= hi for a, (lo, hi) in zip(attempts, case["bands"], strict=False))
        count["attempts and bands right"] += split and banded
    return {kind: dict(count) for kind, count in out.items()}


def own_corpus() -> dict[str, object]:
    """Corpus rows say which segments are restarts and which are off topic."""
    right = rows = false = missed = 0
    on: list[float] = []
    off: list[float] = []
    for row in corpus.rows("corrected", SEED, ROWS, corpus.Recipe()):
        if row.prompt is None:
            continue
        said = sum(any(r in s.text for r in grammar.RESTARTS) for s in row.segments)
        heard = len(restarts("".join(s.text for s in row.segments)))
        rows, right = rows + 1, right + (said == heard)
        false, missed = false + max(0, heard - said), missed + max(0, said - heard)
        for s in row.segments:
            plain = not any(r in s.text for r in grammar.RESTARTS) and len(s.text.split()) >= 8
            if plain and row.theme in {t.name for t in grammar.questions()}:
                (off if s.off else on).append(score(row.prompt, s.text))
    return {
        "rows": rows, "rows with the right number of restarts": right, "restarts too many": false, "restarts too few": missed,
        "on-topic passages": spread(on), "off-topic passages (clean, mixed, broken, salad, loop)": spread(off),
    }  # fmt: skip


def spread(scores: list[float]) -> dict[str, float]:
    tenths = [round(q, 1) for q in statistics.quantiles(scores, n=10)]
    return {"n": len(scores), "mean": round(statistics.fmean(scores), 1), "p10": tenths[0], "p50": tenths[4], "p90": tenths[8]}


def speed() -> float:
    """Replies a second on one core, of the corpus's own mix."""
    rows = [r for r in corpus.rows("corrected", SEED + 1, SPEED, corpus.Recipe()) if r.prompt is not None]
    questions = [
        JudgeQuestion(trial_id="", prompt=r.prompt or "", reply="".join(s.text for s in r.segments), latent=Latent(-1))
        for r in rows
    ]
    judge, start = Lexical(), time.process_time()
    judge.grades(questions)
    return round(len(questions) / (time.process_time() - start))


def main() -> None:
    found = {"judge": Lexical().prompt_hash, "cases": cases(), "corpus": own_corpus(), "replies per second on one core": speed()}
    out = HOME / "docs" / "benchmarks" / "lexical.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("| kind | cases | attempts right | attempts and bands right |\n|---|---|---|---|")
    total: Counter[str] = Counter()
    for kind, count in found["cases"].items():
        total.update(count)
        print(f"| {kind} | {count['cases']} | {count['attempts right']} | {count['attempts and bands right']} |")
    print(f"| **all** | {total['cases']} | {total['attempts right']} | {total['attempts and bands right']} |\n")
    print(json.dumps(found["corpus"], indent=1), found["replies per second on one core"])


if __name__ == "__main__":
    main()
