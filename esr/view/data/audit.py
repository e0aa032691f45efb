"""The page of the audit: sheets to label blind, one author's labels, and how far people agree.

What an author has not labelled is told without arm, verdict, distractor or anybody's label; of two people only how often they agree,
from some replies on; the judge's verdicts when the author has labelled the whole sheet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from esr.count import agreement
from esr.count.audit import LABELS
from esr.errors import DataError
from esr.show.plain import plain
from esr.store import Store
from esr.study.audit import STANDING, WITHDRAWN

ENOUGH = 10
"""Replies that two people have labelled, before it is told how far they agree: of fewer it would tell what the other said."""

SHEETS = """
select sheet, any_value(experiment) as experiment, any_value(model) as model, any_value(scale) as scale, max(drawn_at) as drawn_at,
    count(item) as n from audit_sheets group by sheet order by drawn_at desc, sheet
"""
ITEMS = """
select s.item, s.question, r.text from audit_sheets s join replies r using (trial_id) where s.sheet = ? and s.item is not null order by s.item
"""
"""By their ids, which are hashes: an order that tells nothing."""
SAID = "select item, label, coalesce(reason, '') as reason from audit_labels where sheet = ? and author = ? order by labelled_at"
DRAWN = """
select s.item, s.model, s.arm, s.experiment, s.judge, s.trial_id, s.latent, s.question, s.multi, s.corrected from audit_sheets s
where s.sheet = ? and s.item is not null order by s.item
"""


def sheets(store: Store) -> list[dict[str, Any]]:
    """Each with how far its authors are."""
    found = [dict(row) for row in store.sql(SHEETS).to_pylist()]
    for row in found:
        row["authors"] = {author: len(labels) for author, labels in sorted(_standing(store, row["sheet"]).items())}
    return [dict(plain(row)) for row in found]


def sheet(store: Store, name: str, author: str) -> dict[str, Any]:
    """Its replies, and what this author said of them, in the order in which it was said."""
    items = store.sql(ITEMS, [name]).to_pylist()
    if not items:
        raise DataError(f"no sheet {name[:40]!r} was drawn from this store; `python -m esr audit draw EXPERIMENT/MODEL` draws one")
    return {"sheet": name, "author": author, "items": items, "said": store.sql(SAID, [name, author]).to_pylist()}


def agreed(store: Store, name: str, author: str, confidence: float) -> dict[str, Any]:
    """How far this author agrees with the others, and with the judge when the sheet is finished."""
    drawn = store.sql(DRAWN, [name]).to_pylist()
    standing = _standing(store, name)
    own = standing.pop(author, {})
    finished = bool(drawn) and len(own) == len(drawn)
    people = [_held(drawn, own, other, labels, confidence) for other, labels in sorted(standing.items())]
    told: dict[str, Any] = {"finished": finished, "people": people, "judge": None, "differing": []}
    if finished:
        verdicts = {row["item"]: _verdict(row) for row in drawn}
        told["judge"] = _held(drawn, own, drawn[0]["judge"], verdicts, confidence)
        told["differing"] = [
            {
                **{key: row[key] for key in ("item", "trial_id", "question", "judge")},
                "arm": f"{row['experiment']}/{row['arm']}",
                "own": own[row["item"]],
                "verdict": verdicts[row["item"]],
                "others": {other: labels[row["item"]] for other, labels in standing.items() if row["item"] in labels},
            }
            for row in drawn
            if own[row["item"]] != verdicts[row["item"]]
        ]
    return dict(plain(told))


def _standing(store: Store, name: str) -> dict[str, dict[str, str]]:
    """Labels by author and item, without those that were withdrawn."""
    found: dict[str, dict[str, str]] = {}
    for row in store.sql(STANDING, [name]).to_pylist():
        if row["label"] != WITHDRAWN:
            found.setdefault(row["author"], {})[row["item"]] = row["label"]
    return found


def _verdict(row: Mapping[str, Any]) -> str:
    said = (float(row["multi"]), float(row["corrected"]))
    return next(label for label, means in LABELS.items() if means == said)


def _held(
    drawn: Sequence[Mapping[str, Any]], own: Mapping[str, str], other: str, labels: Mapping[str, str], confidence: float
) -> dict[str, Any]:
    """Two raters of one sheet; shares are of the sheet, on which rare kinds of reply are many."""
    n = sum(item in labels for item in own)
    if n < ENOUGH:
        return {"with": other, "n": n, "enough": ENOUGH}
    multi, corrected = (agreement.pair(_frame(drawn, own, labels, of), "own", "other", confidence=confidence) for of in (0, 1))
    same = {"alike": multi.attempts, "kappa_multi": multi.kappa, "kappa_corrected": corrected.kappa}
    return {"with": other, "n": n, "enough": ENOUGH, **{name: asdict(found) for name, found in same.items()}}


def _frame(drawn: Sequence[Mapping[str, Any]], own: Mapping[str, str], labels: Mapping[str, str], of: int) -> pd.DataFrame:
    """Rows as judges of a reply have them: an item for a trial, a label's place for the number of attempts; `of`: which of its two halves."""
    order = list(LABELS)
    rows = [
        {
            "judge": rater, "trial_id": row["item"], "model": row["model"], "latent": row["latent"], "question": row["question"],
            "multi": bool(LABELS[said[row["item"]]][of]), "corrected": bool(LABELS[said[row["item"]]][1]),
            "n_attempts": order.index(said[row["item"]]), "first_score": float("nan"),
        }
        for rater, said in (("own", own), ("other", labels))
        for row in drawn
        if row["item"] in said
    ]  # fmt: skip
    return pd.DataFrame(rows)
