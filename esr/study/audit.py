"""The audit: a blind sheet of replies for people to label, drawn by known chances, and their labels taken back.

A sheet is stratified by arm, by the judge's verdict and by whether the restart detector sees a restart, so that the rare kinds of
reply are on it in numbers. It shows question and reply and neither arm nor verdict nor distractor. What it was drawn from is kept
whole, so that labels speak of that also when the arm is planned or graded anew.
"""

import csv
import io
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from esr.count import audit
from esr.count.audit import LABELS
from esr.errors import DataError, one_of
from esr.judge.lexical.restarts import restarts
from esr.store import Store
from esr.types import content_id

COLUMNS = ("sheet", "item", "question", "reply", "label", "reason", "author")
"""Of a sheet; the last three are a person's to fill in."""
NEEDED = ("sheet", "item", "label", "reason")
"""Without which a sheet cannot be read; `author` may be said once for all instead."""

DRAWN = """
select o.experiment, o.model, o.arm, o.scale, o.judge, o.trial_id, o.latent, o.question, o.multi, o.corrected, r.text
from outcomes o join replies r using (trial_id)
where o.experiment = ? and o.model = ? and o.scale = ? and o.judge = ?
order by o.arm, o.trial_id, o.latent
"""


@dataclass(frozen=True, slots=True)
class Sheet:
    """What was drawn."""

    id: str
    rows: list[dict[str, str]]
    """In the order in which they are shown, which tells nothing."""
    strata: Mapping[tuple[str, str], tuple[int, int]]
    """By arm and stratum, how many were drawn of how many."""


WITHDRAWN = "withdrawn"
"""In a label's place: its author takes back what was said."""


@dataclass(frozen=True, slots=True)
class Label:
    """What one person says of one item."""

    item: str
    author: str
    label: str
    """A name of LABELS, or WITHDRAWN."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of reading a sheet back."""

    sheet: str
    labelled: int
    """Items of the file with a label."""
    new: int
    """Of them, those that are not what their author had said already."""
    empty: int
    drawn: int
    """Items of the sheet, in the file or not."""


def draw(
    store: Store, experiment: str, model: str, *, scale: str, judge: str, n: int, seed: int, arms: Sequence[str] = ()
) -> Sheet:
    """A sheet of n replies, the same for each arm; recorded with the chances that it was drawn by."""
    rows = store.sql(DRAWN, [experiment, model, scale, judge]).to_pylist()
    known = sorted({row["arm"] for row in rows})
    if not known:
        raise DataError(
            f"{experiment} has no graded replies of {model!r} at scale {scale!r} by {judge!r} to draw from; "
            '`python -m esr sql "from summary"` shows what there is'
        )
    for arm in arms:
        if arm not in known:
            raise DataError(one_of("arm", arm, known, f"{experiment} of {model!r}"))
    wanted = list(arms or known)
    sized = {arm: n // len(wanted) + (i < n % len(wanted)) for i, arm in enumerate(wanted)}
    framed = [_framed(row) for row in rows if row["arm"] in sized]
    sheet = content_id("sheet", n, seed, wanted, [[v for k, v in row.items() if k != "text"] for row in framed], length=12)
    rng, strata = random.Random(f"{seed}/audit/{sheet}"), dict[tuple[str, str], tuple[int, int]]()
    for arm in wanted:
        sizes = Counter(row["stratum"] for row in framed if row["arm"] == arm)
        for stratum, count in sorted(audit.allocation(sizes, sized[arm]).items()):
            some = [row for row in framed if (row["arm"], row["stratum"]) == (arm, stratum)]
            strata[arm, stratum] = (count, len(some))
            for row in some:
                row |= {"sheet": sheet, "item": None, "probability": count / len(some)}
            for row in rng.sample(some, count):
                row["item"] = content_id("item", sheet, arm, row["trial_id"], row["latent"], length=12)
    store.put_audit_sheet([{k: v for k, v in row.items() if k != "text"} for row in framed], sheet)
    shown = [row for row in framed if row["item"]]
    rng.shuffle(shown)
    return Sheet(sheet, [_shown(row) for row in shown], strata)


def _framed(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "stratum": audit.stratum(row["multi"], row["corrected"], bool(restarts(row["text"])))}


def _shown(row: Mapping[str, Any]) -> dict[str, str]:
    told = {"sheet": row["sheet"], "item": row["item"], "question": row["question"] or "", "reply": row["text"]}
    return {name: told.get(name, "") for name in COLUMNS}


def write(sheet: Sheet, file: Path) -> None:
    """As CSV; a file that is there, perhaps with a person's labels, is never written over."""
    text = io.StringIO()
    out = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    out.writeheader()
    out.writerows(sheet.rows)
    try:
        with file.open("x", encoding="utf-8", newline="") as new:
            new.write(text.getvalue())
    except FileExistsError:
        raise DataError(f"{str(file)!r} is there already and may hold labels; name another with --to") from None


def read(store: Store, file: Path, author: str = "") -> Taken:
    """Takes the labels of a sheet back, all of them or, where one line cannot be used, none."""
    rows = list(_rows(file))
    sheets = sorted({row["sheet"] for _, row in rows})
    if len(sheets) != 1:
        raise DataError(f"{file.name} holds lines of {len(sheets)} sheets and should hold those of one; read them one by one")
    (sheet,) = sheets
    known = items(store, sheet)
    if not known:
        raise DataError(
            f"{file.name} is of the sheet {sheet[:40]!r}, which was not drawn from this store; ESR_STORE names the one that it was drawn from"
        )
    found: dict[str, Label] = {}
    empty = 0
    for line, row in rows:
        item, label = row["item"], row["label"].lower()
        if item not in known:
            raise DataError(
                f"line {line} of {file.name} has the item {item[:40]!r}, which is not on the sheet; its ids must stay as drawn"
            )
        if item in found:
            raise DataError(f"line {line} of {file.name} has the item {item} a second time; leave one of the two")
        if not label:
            empty += 1
            continue
        if label not in LABELS:
            raise DataError(
                f"line {line} of {file.name} has the label {row['label'][:40]!r}; it should be one of {', '.join(LABELS)}, or empty"
            )
        who = row.get("author") or author
        if not who:
            raise DataError(
                f"line {line} of {file.name} has a label and no author; fill in the column author, or give --author NAME"
            )
        found[item] = Label(item, who, label, row["reason"])
    return Taken(sheet, len(found), say(store, sheet, list(found.values())), empty, len(known))


def items(store: Store, sheet: str) -> frozenset[str]:
    """Of a sheet that was drawn from this store; empty: there is none of this name."""
    return frozenset(store.sql("select item from audit_sheets where sheet = ? and item is not null", [sheet])["item"].to_pylist())


STANDING = """
select item, author, label, coalesce(reason, '') as reason from audit_labels where sheet = ?
qualify row_number() over (partition by item, author order by labelled_at desc) = 1
"""


def say(store: Store, sheet: str, labels: Sequence[Label]) -> int:
    """Keeps those of the labels that are not what their author says already; how many."""
    standing = {(row["item"], row["author"]): (row["label"], row["reason"]) for row in store.sql(STANDING, [sheet]).to_pylist()}
    new = [one for one in labels if standing.get((one.item, one.author)) != (one.label, one.reason)]
    keep(store, sheet, new)
    return len(new)


def keep(store: Store, sheet: str, labels: Sequence[Label]) -> None:
    """Labels of items of the sheet are durable when this returns."""
    store.put_audit_labels([{"sheet": sheet, **asdict(one), "reason": one.reason or None} for one in labels])


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines with their numbers, stripped; a spreadsheet may have written a mark of its own first, and semicolons."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{file.name} is not UTF-8 text; save it as CSV in UTF-8") from None
    first = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ",")
    names = [name.strip() for name in reader.fieldnames or []]
    if lacking := [name for name in NEEDED if name not in names]:
        raise DataError(f"{file.name} lacks the column {lacking[0]!r}; a sheet has {', '.join(COLUMNS)}")
    for row in reader:
        if any(row.values()):
            yield (
                reader.line_num,
                {str(k).strip(): (v or "").strip() for k, v in row.items() if k is not None and not isinstance(v, list)},
            )
