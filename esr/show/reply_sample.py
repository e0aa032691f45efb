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
            "select o.arm, o.trial_id, o.question, o.latent, o.boost, g.attempts, r.text from outcomes o join replies r using (trial_id) "
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
    return (
        f"**{row['kind']}** · {row['arm']} · latent {row['latent']} at boost {row['boost']:.3g} · scores {scores}\n\n"
        f"> {row['question']}\n\n{marked(row['text'], row['attempts'])}"
    )


def marked(text: str, attempts: Sequence[Mapping[str, Any]]) -> str:
    """The reply with `⟦attempt 2: 75⟧` where the second attempt begins; attempts that are not in it are listed after it."""
    at = sorted((a["start"], i, a["score"]) for i, a in enumerate(attempts, 1) if a["start"] is not None)
    out, done = [], 0
    for start, i, score in at:
        out += [_plain(text[done:start]), f" **⟦attempt {i}: {score:.0f}⟧** "]
        done = start
    shown = "".join([*out, _plain(text[done:])]).strip()
    lost = [
        f"attempt {i} ({a['score']:.0f}) was quoted but is not in the reply"
        for i, a in enumerate(attempts, 1)
        if a["start"] is None
    ]
    return "\n\n".join([shown[:CUT] + (" …" if len(shown) > CUT else ""), *lost])


def _plain(text: str) -> str:
    """Without what Markdown or HTML would take for its own."""
    return "".join("\\" + c if c in "\\`*_#[]|~" else "&lt;" if c == "<" else c for c in text)


def pictures(paths: Sequence[Path]) -> str:
    """Markdown that carries the pictures in itself, so that they can be seen where the files cannot be reached."""
    return "\n\n".join(
        f"![{path.stem}](data:image/png;base64,{b64encode(path.read_bytes()).decode()})\n\n`{path}`" for path in paths
    )
