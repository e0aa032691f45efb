"""Contrasted texts in a model's own words: of many subjects a few unsteered replies each, from which directions are made.

    python -m esr directions texts smollm2          # models/smollm2-contrast.tsv

They are chosen by rule from the trials that labels are made from, with the same seeds; where those have replies of this length nothing is
generated.
"""

import csv
import io
from typing import TYPE_CHECKING

from esr import prompts
from esr.errors import DataError
from esr.labelling import texts
from esr.study import steer
from esr.study.along import COLUMNS

if TYPE_CHECKING:
    from esr.study.study import Study
    from esr.types import Trial

SUBJECTS, TEXTS, TOKENS = 200, 2, 128
REPLIES = 3
"""Of the labels' texts to every request, as `python -m esr labels make` asks for them: seeds follow from it."""


def trials(study: "Study", subjects: int, each: int) -> "list[Trial]":
    """The first subjects of the labels' list, each asked by the first requests."""
    known, requests = prompts.lines("label_subjects"), prompts.lines("label_requests")
    if not 2 <= subjects <= len(known) or not 1 <= each <= len(requests):
        raise DataError(
            f"{subjects} subjects with {each} texts each were asked for; there are {len(known)} subjects, of which two or more have something "
            f"to be contrasted with, and {len(requests)} requests"
        )
    asked = texts.trials(study, known, REPLIES, max_tokens=TOKENS)
    per = REPLIES * len(requests)
    return [trial for i in range(subjects) for trial in asked[i * per : i * per + each]]


def table(study: "Study", subjects: int = SUBJECTS, each: int = TEXTS) -> str:
    """Subject, prompt and text of each, as TSV; what the store lacks is generated first."""
    asked = trials(study, subjects, each)
    steer.replies(study, asked, "texts")
    replies = study.store.texts([trial.id for trial in asked])
    out = io.StringIO()
    lines = csv.writer(out, delimiter="\t", lineterminator="\n")
    lines.writerow(COLUMNS)
    lines.writerows((trial.question, trial.prompt, replies[trial.id].strip()) for trial in asked if replies[trial.id].strip())
    return out.getvalue()
