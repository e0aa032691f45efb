"""How concrete a label is, without a key: 0 (a word, a form, a manner) to 100 (a subject that one could write about).

    rating = 100 · s · min(1, e / HELD_BY)

s is the share of the label's words that name a thing: no function word, no word of conversation or of instruction, no abstract or
grammatical term, and not formed like an abstract noun, an adverb or a participle. e is the share of the latent's own passages that hold
one of the label's words: a label that they do not bear out is not concrete, whatever it says. Without passages e counts as 1. A label
about words as such, in the two forms that the local labeller has for them or in others' words, is 0.
"""

import re
from collections.abc import Sequence

from esr.judge.lexical.words import FUNCTION, HOW_TO, META
from esr.labelling.score import FIRST, named
from esr.labelling.words import words

HELD_BY = 0.5
AS_SUCH = re.compile(
    r"\b(?:words?|tokens?|punctuations?|commas?|periods?|hyphens?|brackets?|parenthes[ei]s|quotation|letters?|digits?|prefix(?:es)?|suffix(?:es)?|"
    r"capitali[sz](?:ed|ation)|verbs?|nouns?|pronouns?|adjectives?|adverbs?|conjunctions?|prepositions?|articles?|clauses?|sentences?|phrases?|"
    r"tenses?|plurals?|formatting|whitespace|newlines?|text says|beginning of|end of|start of|syntax|list items?)\b"
)
ABSTRACT = frozenset(
    [
        "abstract",
        "action",
        "agreement",
        "amount",
        "aspect",
        "attitude",
        "basis",
        "behavior",
        "cause",
        "change",
        "characteristic",
        "claim",
        "comparison",
        "complexity",
        "concept",
        "concern",
        "condition",
        "connection",
        "consequence",
        "context",
        "contrast",
        "degree",
        "description",
        "detail",
        "difference",
        "effect",
        "effort",
        "emphasis",
        "event",
        "evidence",
        "example",
        "existence",
        "expectation",
        "experience",
        "expression",
        "fact",
        "feature",
        "feeling",
        "focus",
        "form",
        "format",
        "function",
        "future",
        "general",
        "generic",
        "goal",
        "hypothetical",
        "idea",
        "importance",
        "improvement",
        "information",
        "instance",
        "instruction",
        "intention",
        "issue",
        "kind",
        "level",
        "list",
        "logic",
        "manner",
        "meaning",
        "mention",
        "mood",
        "nature",
        "necessity",
        "negation",
        "negative",
        "notion",
        "number",
        "obligation",
        "opinion",
        "option",
        "order",
        "outcome",
        "past",
        "pattern",
        "perspective",
        "phenomenon",
        "point",
        "politeness",
        "positive",
        "possibility",
        "preference",
        "present",
        "problem",
        "process",
        "progress",
        "property",
        "purpose",
        "quality",
        "quantity",
        "reason",
        "reference",
        "refusal",
        "relation",
        "request",
        "requirement",
        "result",
        "role",
        "sense",
        "sequence",
        "series",
        "situation",
        "solution",
        "specific",
        "state",
        "statement",
        "status",
        "strategy",
        "structure",
        "style",
        "suggestion",
        "summary",
        "task",
        "tendency",
        "term",
        "theme",
        "time",
        "tone",
        "topic",
        "transition",
        "trend",
        "type",
        "uncertainty",
        "usage",
        "value",
        "various",
        "variety",
        "way",
    ]
)
FORMED = re.compile(r"\w{3,}(?:ness|ment|ity|ism|ance|ence|ship|hood|tion|sion|ations?|ing|ly|ive|ous|al|able|ible|ed)s?$")


def thing(word: str) -> bool:
    single = word[:-1] if word.endswith("s") and not word.endswith("ss") else word
    return not ({word, single} & (FUNCTION | HOW_TO | META | ABSTRACT | FIRST)) and not FORMED.match(word)


def concreteness(label: str, passages: Sequence[str] = ()) -> float:
    lower = label.lower()
    if AS_SUCH.search(lower):
        return 0.0
    content = [word for word in words(lower) if word not in FUNCTION | FIRST]
    if not content:
        return 0.0
    share = sum(thing(word) for word in content) / len(content)
    borne_out = 1.0
    if passages:
        wanted = named(label)
        borne_out = sum(bool(wanted & set(words(passage))) for passage in passages) / len(passages)
    return round(100 * share * min(1.0, borne_out / HELD_BY), 1)
