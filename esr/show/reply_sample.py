"""A few graded replies to read, with the attempts marked where they begin: numbers are believed when the text is seen."""

import random
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from esr.experiment import Selection
from esr.store import Store

KINDS = {
    "corrected": "corrected",
    "restarted without gain": "multi and not corrected",
    "single attempt": "not multi",
}
"""What is drawn from each, in the order in which it is shown."""
EACH = 2
CUT = 1200
"""Characters of a reply that are shown."""


def replies(store: Store, chosen: Selection, seed: int) -> list[dict[str, Any]]:
    """Some replies of the experiment's own arms, of each kind as many where there are any."""
    found: list[dict[str, Any]] = []
    for kind, condition in KINDS.items():
        rows = store.sql(
            "select o.arm, o.trial_id, o.question, o.prompt, o.latent, o.latent_label, o.boost, g.attempts, r.text from outcomes o join replies r using (trial_id) "
            "join grades g on g.trial_id = o.trial_id and g.judge = o.judge and g.judge_prompt = o.judge_prompt and g.missing is null "
            f"and g.latent in (o.latent, -1) where o.experiment = ? and o.model = ? and o.scale = ? and o.judge = ? and {condition} order by o.trial_id, o.arm limit 500",
            [chosen.experiment, chosen.model, chosen.scale, chosen.judge],
        ).to_pylist()
        drawn = random.Random(f"{seed}/sample/{kind}").sample(rows, min(EACH, len(rows)))
        found += [{**row, "kind": kind} for row in drawn]
    return found


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    return "\n\n---\n\n".join(_one(row) for row in rows) or "No graded reply yet."


def _one(row: Mapping[str, Any]) -> str:
    scores = " → ".join(f"{attempt['score']:.0f}" for attempt in row["attempts"])
    latent = f"latent {row['latent']} ({_plain(row['latent_label'] or 'no label')})"
    steered = f"{latent} at boost {row['boost']:.3g}" if row["boost"] else f"not steered; its distractor would be {latent}"
    return (
        f"**{row['kind']}** · {_plain(row['arm'])} · {steered} · scores {scores}\n\ntrial `{row['trial_id']}`, whole with `python -m esr show {row['trial_id'][:12]}`\n\n"
        f"> {_plain(row['question'])}\n\n{_told(row)}{marked(row['text'], row['attempts'])}"
    )


def _told(row: Mapping[str, Any]) -> str:
    """What the prompt says besides the question: the meta-prompt."""
    more = row["prompt"].replace(row["question"], "", 1).strip()
    return f"> and: {_plain(' '.join(more.split()))}\n\n" if more else ""


def marked(text: str, attempts: Sequence[Mapping[str, Any]]) -> str:
    """The reply with `⟦attempt 2: 75⟧` where the second attempt begins and `⟦end 2⟧` where it ends; attempts that are not in it are listed after it."""
    pieces = [_plain(part) if plain else f" **{part}** " for part, plain in _pieces(text[:CUT], attempts)]
    return "\n\n".join(["".join(pieces).strip() + (" …" if len(text) > CUT else ""), *_lost(attempts)])


def attempts(text: str, marks: Sequence[Mapping[str, Any]]) -> str:
    """The whole reply for a terminal, marked in the same way."""
    return "\n".join(["".join(part for part, _ in _pieces(text, marks)), *_lost(marks)])


def _pieces(text: str, attempts: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
    """The reply cut where attempts begin and end, with marks between; of each, whether it is the reply's own text."""
    found = [(i, a) for i, a in enumerate(attempts, 1) if a["start"] is not None]
    begins = [(a["start"], 1, i, f"⟦attempt {i}: {_score(a)}⟧") for i, a in found]
    ends = [(a["end"], 0, i, f"⟦end {i}⟧") for i, a in found if a["end"] is not None]
    out, done = [], 0
    for at, _, _, mark in sorted([*begins, *ends]):
        if at > len(text):
            break
        out += [(text[done:at], True), (mark, False)]
        done = at
    return [*out, (text[done:], True)]


def _lost(attempts: Sequence[Mapping[str, Any]]) -> list[str]:
    every = enumerate(attempts, 1)
    return [f"attempt {i} ({_score(a)}) was quoted but is not in the reply" for i, a in every if a["start"] is None]


def _score(attempt: Mapping[str, Any]) -> str:
    return "no score" if attempt["score"] is None else f"{attempt['score']:.0f}"


def _plain(text: str) -> str:
    """Without what Markdown or HTML would take for its own."""
    return "".join("\\" + c if c in "\\`*_#[]|~" else "&lt;" if c == "<" else c for c in text)


def pictures(paths: Sequence[Path]) -> str:
    """Markdown that carries the pictures in itself, so that they can be seen where the files cannot be reached."""
    return "\n\n".join(
        f"![{path.stem}](data:image/png;base64,{b64encode(path.read_bytes()).decode()})\n\n`{path}`" for path in paths
    )
