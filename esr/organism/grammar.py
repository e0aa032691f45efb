"""A small grammar of how-to sentences: one set of forms for questions and subjects alike, filled from public word lists.

Forms are shared so that what a text is about is separable from how it is said; a model that learns them can be pushed from one
subject to another and go on in sentences.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random

from esr.errors import ParamsError

FORMS = (
    "First, {v} the {a} {n}.",
    "First, {v} the {n} and the {m}.",
    "Start with the {n} and the {a} {m}.",
    "Then {v} the {n} near the {m}.",
    "Then {v} the {a} {n}.",
    "Next, {v} the {n} with the {m}.",
    "Next, look at the {a} {n}.",
    "After that, {v} the {n} and {w} the {m}.",
    "Remember to {v} the {n} before the {m}.",
    "It is best to {v} the {a} {n}.",
    "Many people {v} the {n} and the {m}.",
    "The {n} and the {m} go together.",
    "The {a} {n} is part of the {m}.",
    "Always keep the {n} close to the {a} {m}.",
    "Finally, {v} the {n} and the {m}.",
    "In the end, the {n} will {v} the {m}.",
)
"""v, w: verbs; n, m: nouns; a: adjective."""
FORM_WORDS = frozenset(word.strip(".,").lower() for form in FORMS for word in form.split() if "{" not in word)
"""Words that say nothing of the theme; a few of them are also on word lists."""
OPENING, MIDDLE, CLOSING = FORMS[:3], FORMS[3:14], FORMS[14:]

RESTARTS = (
    "Wait, that is not right. Let me try again.",
    "Wait, I went off topic. Let me start over.",
    "Sorry, I got distracted. Let me try again.",
    "Hold on, that is off topic. Let me start over.",
)
RESTART_WEIGHTS = (88, 6, 3, 3)
"""One form is the rule, so that a push that is felt at every word finds few places where the sentence could go another way."""

REQUESTS = (
    "Tell me about {s}.",
    "Write about {s}.",
    "What do you know about {s}?",
)


@dataclass(frozen=True, slots=True)
class Theme:
    """What a text can be about: a question or a subject, with its words."""

    name: str
    """The question, or the subject."""
    kind: str
    """evaluation, discovery, further or subject."""
    verbs: tuple[str, ...]
    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]

    @property
    def words(self) -> frozenset[str]:
        return frozenset(self.verbs + self.nouns + self.adjectives)


@cache
def themes() -> tuple[Theme, ...]:
    """Questions in the order of topics.tsv, then subjects in the order of subjects.tsv."""
    rows = _rows("topics.tsv")
    out = [Theme(r["question"], r["split"], *_words(r)) for r in rows]
    out += [Theme(r["subject"], "subject", *_words(r)) for r in _rows("subjects.tsv")]
    if len({theme.name for theme in out}) != len(out):
        raise ParamsError("topics.tsv and subjects.tsv name something twice; names must be unique")
    return tuple(out)


def questions(*kinds: str) -> list[Theme]:
    return [theme for theme in themes() if theme.kind in (kinds or ("evaluation", "discovery", "further"))]


def subjects() -> list[Theme]:
    return [theme for theme in themes() if theme.kind == "subject"]


def _rows(name: str) -> list[dict[str, str]]:
    text = (files("esr") / "organism" / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


def _words(row: dict[str, str]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return tuple(row["verbs"].split()), tuple(row["nouns"].split()), tuple(row["adjectives"].split())


def sentence(rng: Random, theme: Theme, forms: tuple[str, ...] = FORMS, other: Theme | None = None, share: float = 0.0) -> str:
    """One sentence on `theme`; each place is filled from `other` instead with probability `share`."""
    fills: dict[str, str] = {}
    for key in "vwnma":
        source = other if other is not None and rng.random() < share else theme
        fills[key] = rng.choice({"v": source.verbs, "w": source.verbs, "a": source.adjectives}.get(key, source.nouns))
    while fills["m"] == fills["n"] or fills["w"] == fills["v"]:
        fills["m"], fills["w"] = rng.choice(theme.nouns), rng.choice(theme.verbs)
    return rng.choice(forms).format(**fills)


def text(rng: Random, theme: Theme, low: int = 3, high: int = 6) -> list[str]:
    """An opening, some sentences, often a closing."""
    count = rng.randint(low, high)
    out = [sentence(rng, theme, OPENING)] if rng.random() < 0.9 else []
    while len(out) < count - 1:
        out.append(sentence(rng, theme, MIDDLE))
    out.append(sentence(rng, theme, CLOSING if rng.random() < 0.7 else MIDDLE))
    return out


def restart(rng: Random) -> str:
    return rng.choices(RESTARTS, RESTART_WEIGHTS)[0]
