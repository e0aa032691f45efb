"""How surely a quotation is found in its reply, whatever a judge did to its looks, and how surely one that was made up is not.

    python scripts/judge_quotations.py      writes docs/benchmarks/judge_quotations.json

Replies and attempts are the shipped models' corpus and the lexical judge's cases. A quotation that is made up is an attempt of another
reply: to the same question, which is the harder case, or to another one.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from esr.judge import JudgeQuestion
from esr.judge.lexical import Lexical
from esr.judge.locate import Span, locate
from esr.organism import corpus
from esr.types import Attempt, Latent

HOME = Path(__file__).resolve().parent.parent
ROWS, SEED = 6_000, 11


def shortened(text: str, rng: random.Random) -> str:
    """As the judge is asked to: the first ten words and the last ten."""
    words = text.split()
    return text if len(words) < 25 else " ".join(words[:10]) + rng.choice([" ... ", " … ", "... [...] "]) + " ".join(words[-10:])


def one_word_wrong(text: str, rng: random.Random) -> str:
    words = text.split()
    words[rng.randrange(len(words))] = "something"
    return " ".join(words)


LOOKS: dict[str, Callable[[str, random.Random], str]] = {
    "copied": lambda text, rng: text,
    "case": lambda text, rng: rng.choice([text.upper(), text.lower(), text.capitalize()]),
    "spaces and lines": lambda text, rng: re.sub(r"\s+", lambda _: rng.choice([" ", "\n", "  ", "\\n"]), text),
    "quotes and dashes": lambda text, rng: "“" + text.replace("'", "’").replace("-", "–").replace('"', "”") + "”",
    "punctuation dropped": lambda text, rng: re.sub(r"[,.;:!?]", "", text),
    "marked up": lambda text, rng: re.sub(r"\b(\w+)\b", lambda m: f"**{m[1]}**" if rng.random() < 0.1 else m[1], text),
    "shortened with dots": shortened,
    "one word wrong, of twelve or more": one_word_wrong,
}


def judged() -> list[tuple[str, str, Attempt]]:
    """(question, reply, attempt) of everything that the lexical judge marked off."""
    found = []
    judge = Lexical()
    replies = [
        (row.prompt, "".join(s.text for s in row.segments))
        for row in corpus.rows("corrected", SEED, ROWS, corpus.Recipe())
        if row.prompt
    ]
    lines = (HOME / "tests" / "data" / "lexical_cases.jsonl").read_text(encoding="utf-8").splitlines()
    replies += [(case["prompt"], case["reply"]) for case in map(json.loads, lines)]
    for prompt, reply in replies:
        asked = JudgeQuestion(trial_id="", prompt=prompt, reply=reply, latent=Latent(-1))
        found += [(prompt, reply, attempt) for attempt in judge.grades([asked])[0].attempts]
    return found


def overlaps(span: Span, attempt: Attempt) -> bool:
    return attempt.start is not None and attempt.end is not None and span.start < attempt.end and attempt.start < span.end


def main() -> None:
    everything, rng = judged(), random.Random(SEED)
    unlocated = sum(not attempt.located for _, _, attempt in everything)
    long = [item for item in everything if len(item[2].text.split()) >= 12]
    looks: dict[str, dict[str, int]] = {}
    for name, change in LOOKS.items():
        some = long if name.startswith("one word") else everything
        spans = [(locate(change(attempt.text, rng), reply), reply, attempt) for _, reply, attempt in some]
        found = [span for span, _, _ in spans if span is not None]
        right = sum(span is not None and overlaps(span, attempt) for span, _, attempt in spans)
        looks[name] = {"quotations": len(some), "found": len(found), "found at their place": right}
    made_up: dict[str, Counter[str]] = {
        "of another reply to the same question": Counter(),
        "of a reply to another question": Counter(),
    }
    for prompt, reply, _ in long:
        for _ in range(3):
            other_prompt, _, attempt = rng.choice(long)
            if attempt.text.strip() in reply:
                continue  # a sentence that both replies hold is in both
            kind = "of another reply to the same question" if other_prompt == prompt else "of a reply to another question"
            made_up[kind]["quotations"] += 1
            made_up[kind]["found"] += locate(attempt.text, reply) is not None
    by_prompt: dict[str, list[Attempt]] = {}
    for prompt, _, attempt in long:
        by_prompt.setdefault(prompt, []).append(attempt)
    for prompt, reply, _ in long:
        attempt = rng.choice(by_prompt[prompt])
        if attempt.text.strip() not in reply:
            made_up["of another reply to the same question"]["quotations"] += 1
            made_up["of another reply to the same question"]["found"] += locate(attempt.text, reply) is not None
    result = {
        "lexical judge": {"attempts": len(everything), "not located": unlocated},
        "quotations by what was done to their looks": looks,
        "made up": {kind: dict(counted) for kind, counted in made_up.items()},
    }
    out = HOME / "docs" / "benchmarks" / "judge_quotations.json"
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
