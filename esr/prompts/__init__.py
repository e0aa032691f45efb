"""Every prompt is a text file beside this one; `{{name}}` marks a place, filled in one pass.

One pass, because a filled-in reply may itself contain `{{name}}`, and never `str.format`, because judge prompts
hold JSON braces.
"""

import hashlib
import re
from functools import cache
from importlib.resources import files

from esr.errors import ParamsError, one_of

PLACE = re.compile(r"\{\{(\w+)\}\}")


@cache
def text(name: str) -> str:
    """The file `name`.txt without its last newline: `text("evaluation")`, `text("suffixes/self_monitor")`."""
    path = files(__name__) / f"{name}.txt"
    if not path.is_file():
        known = sorted(p.name.removesuffix(".txt") for p in files(__name__).iterdir() if p.name.endswith(".txt"))
        raise ParamsError(one_of("prompt", name, known + suffixes(), "esr/prompts"))
    return path.read_text(encoding="utf-8").removesuffix("\n")


def lines(name: str) -> list[str]:
    return [line for line in text(name).splitlines() if line.strip()]


def fill(template: str, **values: str) -> str:
    """Every `{{name}}` of the template replaced at once; a name without a value, or a value without a place, is refused."""
    places = set(PLACE.findall(template))
    if places != set(values):
        raise ParamsError(f"the template has places {sorted(places)} and was given {sorted(values)}")
    return PLACE.sub(lambda match: values[match[1]], template)


def evaluation() -> list[str]:
    """The 38 evaluation questions."""
    return lines("evaluation")


def discovery() -> list[str]:
    """The 20 discovery questions, disjoint from the evaluation questions."""
    return lines("discovery")


def suffixes() -> list[str]:
    names = (p.name.removesuffix(".txt") for p in (files(__name__) / "suffixes").iterdir())
    return sorted(f"suffixes/{name}" for name in names)


def with_suffix(question: str, variant: str, latent_label: str) -> str:
    """The question, one space, and the meta-prompt `variant`."""
    template = text(f"suffixes/{variant}")
    values = {"latent_label": latent_label} if "{{latent_label}}" in template else {}
    return f"{question} {fill(template, **values)}"


def digest(*names: str) -> str:
    """One hash of several prompt files, for manifests and cache keys."""
    return hashlib.sha256("\0".join(text(name) for name in names).encode()).hexdigest()[:16]
