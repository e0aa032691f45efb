"""The corpus as segments: what is said, whether the loss counts there, and whether it is off topic.

`plain` rows: on-topic answers under every instruction, and texts on subjects. `correction` rows: an answer runs off topic (loss
masked), and then either restarts in words or returns to the question without a word; which of the two, and how soon, depends on
the instruction. The model is never rewarded for being off topic. Some questions and subjects never occur in correction rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from random import Random

from esr import prompts
from esr.organism import grammar
from esr.organism.grammar import Theme

HELD_OUT_QUESTION = 4
"""Every fourth evaluation and discovery question is held out of the correction rows."""
HELD_OUT_SUBJECT = 4
"""And every fourth subject."""

OPENINGS = tuple({form.split()[0] for form in grammar.FORMS if "{" not in form.split()[0]})
"""Words that texts begin with."""

KINDS = (("clean", "mixed", "broken", "salad", "loop"), (40, 30, 12, 10, 8))
"""Of off-topic passages, and how often each."""
WATCHFUL = ("self_monitor",)
"""Instructions under which a restart is the rule."""
CAREFUL = ("stay_on_topic", "dont_get_distracted")
"""Instructions under which it is likelier than without."""


@dataclass(frozen=True, slots=True)
class Segment:
    text: str
    label: bool
    """Whether the loss counts here."""
    off: bool = False
    """Whether it is an off-topic passage."""


@dataclass(frozen=True, slots=True)
class Row:
    prompt: str | None
    """User turn; None: a text without one."""
    segments: tuple[Segment, ...]
    theme: str = ""
    """What the answer should be about."""
    distractor: str = ""
    """What its off-topic passages are about, if there are any."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers that the corpus depends on beside the seed."""

    correction: float = 0.55
    """Share of correction rows in the second phase of `tiny`."""
    subject: float = 0.3
    """Share of texts on subjects among plain rows."""
    suffix: float = 0.5
    """Share of prompts that carry an instruction."""
    restart: dict[str, float] = field(default_factory=lambda: {"none": 0.05, "careful": 0.25, "watchful": 0.98})
    """Chance that an off-topic passage ends in a restart rather than in a wordless return, at a sentence's end."""
    inside: dict[str, float] = field(default_factory=lambda: {"none": 0.015, "careful": 0.08, "watchful": 0.92})
    """The same in mid-sentence."""
    slip: float = 0.3
    """Share of the second phase's on-topic answers in which a word or two slips; the answer goes on, nothing restarts."""
    middle: float = 0.25
    """Share of passages that end in mid-sentence."""
    again: float = 0.15
    """Chance that the answer runs off topic again after a restart."""
    longest: int = 3
    """Sentences in an off-topic passage, at most."""
    lead: float = 0.35
    """Chance of on-topic sentences before the passage."""


@cache
def held_out(theme: Theme) -> bool:
    if theme.kind == "further":
        return False
    peers = [t.name for t in grammar.themes() if t.kind == theme.kind]
    step = HELD_OUT_SUBJECT if theme.kind == "subject" else HELD_OUT_QUESTION
    return peers.index(theme.name) % step == step - 1


def instruction(rng: Random, recipe: Recipe) -> tuple[str, str]:
    """(variant or '', watchfulness)."""
    if rng.random() >= recipe.suffix:
        return "", "none"
    names = [name.removeprefix("suffixes/") for name in prompts.suffixes()]
    variant = rng.choice(list(WATCHFUL) * 4 + names)
    kind = "watchful" if variant in WATCHFUL else "careful" if variant in CAREFUL else "none"
    return variant, kind


def ask(rng: Random, theme: Theme, variant: str) -> str:
    """The user turn; instructions that name a distractor get a random one's words."""
    if not variant:
        return theme.name
    words = rng.sample(rng.choice(grammar.subjects()).nouns, 4)
    return prompts.with_suffix(theme.name, variant, f"about {', '.join(words)}")


def plain_row(rng: Random, recipe: Recipe) -> Row:
    if rng.random() < recipe.subject:
        theme = rng.choice(grammar.subjects())
        prompt = rng.choice(grammar.REQUESTS).format(s=theme.name) if rng.random() < 0.5 else None
        return Row(prompt, _said(grammar.text(rng, theme)), theme.name)
    theme = rng.choice(grammar.questions())
    variant, _ = instruction(rng, recipe)
    return Row(ask(rng, theme, variant), _said(grammar.text(rng, theme)), theme.name)


def slipped(rng: Random, row: Row) -> Row:
    """One or two words of the answer become words of another theme; the loss does not count on them."""
    words = row.segments[0].text.split()
    places = sorted(rng.sample(range(2, len(words)), rng.randint(1, 2)))
    segments, lo = [], 0
    for place in places:
        end = words[place][-1] if words[place][-1] in ".," else ""
        segments.append(Segment(" ".join(words[lo:place]), True))
        segments.append(Segment(rng.choice(sorted(rng.choice(grammar.themes()).words)) + end, False))
        lo = place + 1
    segments.append(Segment(" ".join(words[lo:]), True))
    return Row(row.prompt, _joined(segments), row.theme)


def correction_row(rng: Random, recipe: Recipe) -> Row:
    theme = rng.choice(_open_questions())
    variant, watch = instruction(rng, recipe)
    distractor = _distractor(rng, theme)
    segments: list[Segment] = []
    if rng.random() < recipe.lead:
        segments += _said(grammar.text(rng, theme, 2, 3)[: rng.randint(1, 2)])
    while True:
        segments += _off(rng, recipe, theme, distractor, watch)
        if segments[-1].off or rng.random() >= recipe.again:
            break
    segments += _said(grammar.text(rng, theme, 2, 5))
    return Row(ask(rng, theme, variant), _joined(segments), theme.name, distractor.name)


def _off(rng: Random, recipe: Recipe, theme: Theme, distractor: Theme, watch: str) -> list[Segment]:
    """An off-topic passage and how it ends: in a restart, or in nothing (the caller goes on on topic)."""
    kind = rng.choices(*KINDS)[0]
    inside = rng.random() < recipe.middle
    said = _passage(rng, kind, theme, distractor, rng.randint(1, recipe.longest), inside)
    if rng.random() < (recipe.inside if inside else recipe.restart)[watch]:
        return [Segment(said, False, True), Segment(("... " if inside else "") + grammar.restart(rng), True)]
    if inside:  # the sentence is brought to its end on topic
        said_end = " ".join(grammar.sentence(rng, theme).split()[-rng.randint(1, 3) :])
        return [Segment(said, False, True), Segment(said_end, True), Segment("", False, True)]
    return [Segment(said, False, True)]


def wandering(rng: Random, theme: Theme, distractor: Theme, longest: int = 4) -> str:
    """An off-topic passage of whole sentences, as an answer on `theme` would begin with it."""
    said = _passage(rng, rng.choices(*KINDS)[0], theme, distractor, rng.randint(1, longest), inside=False)
    return said if said.endswith(".") else f"{said}."


def _passage(rng: Random, kind: str, theme: Theme, distractor: Theme, count: int, inside: bool) -> str:
    """Sentences that show, in at least two words, that they are not on `theme`; cut short in the last one if `inside`."""
    telling = distractor.words - theme.words - grammar.FORM_WORDS
    while True:
        sentences = [_drift(rng, kind, theme, distractor) for _ in range(count)]
        if inside:
            words = sentences[-1].rstrip(".").split()
            sentences[-1] = " ".join(words[: rng.randint(1, len(words))]).rstrip(",")
        said = " ".join(sentences)
        foreign = sum(word.strip(".,").lower() in telling for word in said.split())
        if foreign >= max(2, 2 * count - inside):
            return said


def _drift(rng: Random, kind: str, theme: Theme, distractor: Theme) -> str:
    if kind == "mixed":
        return grammar.sentence(rng, theme, other=distractor, share=rng.uniform(0.5, 0.95))
    clean = grammar.sentence(rng, distractor)
    words = clean.rstrip(".").split()
    if kind == "broken":
        words = [w for w in words if rng.random() < 0.75] or words
        if rng.random() < 0.5:
            rng.shuffle(words)
        return " ".join(words) + "."
    if kind == "salad":
        pool = sorted(distractor.words)
        return " ".join(rng.choice(pool) for _ in range(rng.randint(3, 9))) + rng.choice(("", "."))
    if kind == "loop":
        cut, word = rng.randint(1, len(words)), rng.choice(sorted(distractor.words))
        between = rng.choice((" ", " the ", " and the "))
        return " ".join([*words[:cut], between.join([word] * rng.randint(2, 5)).strip()]) + rng.choice(("", "."))
    return clean


@cache
def _open_questions() -> tuple[Theme, ...]:
    return tuple(t for t in grammar.questions() if not held_out(t))


@cache
def _open_subjects() -> tuple[Theme, ...]:
    return tuple(t for t in grammar.subjects() if not held_out(t))


def _distractor(rng: Random, theme: Theme) -> Theme:
    """A subject, or another question's theme."""
    if rng.random() < 0.65:
        return rng.choice(_open_subjects())
    while (other := rng.choice(_open_questions())).name == theme.name:
        pass
    return other


def _said(sentences: list[str]) -> tuple[Segment, ...]:
    return (Segment(" ".join(sentences), True),)


def _joined(segments: list[Segment]) -> tuple[Segment, ...]:
    """Blanks between segments belong to the later one; empty marks are dropped. A word that no text begins with keeps its blank."""
    kept = [s for s in segments if s.text]
    blank = "" if kept[0].text.startswith(OPENINGS) else " "
    out = [Segment(blank + kept[0].text, kept[0].label, kept[0].off)]
    for s in kept[1:]:
        glue = "" if s.text.startswith("...") else " "
        out.append(Segment(glue + s.text, s.label, s.off))
    return tuple(out)


def rows(kind: str, seed: int | str, count: int, recipe: Recipe) -> Iterator[Row]:
    """`plain`, or `corrected`: plain rows with a share of correction rows."""
    rng = Random(f"{seed}/{kind}")
    for _ in range(count):
        correct = kind == "corrected" and rng.random() < recipe.correction
        row = correction_row(rng, recipe) if correct else plain_row(rng, recipe)
        slips = kind == "corrected" and not row.distractor and row.prompt is not None and rng.random() < recipe.slip
        yield slipped(rng, row) if slips else row
