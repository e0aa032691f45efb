"""Mixtures of masked and normal rows, from 10 to 90 per cent masked. Pure.

nested    every mixture has the same size, and a richer one keeps the masked rows of a poorer one: only the share changes
authors   the authors' rule to the row: one random stream over all ratios, as many masked rows as the ratio says of all there are
"""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from esr.errors import ParamsError

T = TypeVar("T")
THEIRS = tuple(range(10, 100, 10))
"""The authors' ratios, in the order in which their random stream met them."""
SEED = 42


def nested(masked: Sequence[T], normal: Sequence[T], ratios: Sequence[int], total: int, rng: Random) -> dict[int, list[T]]:
    """Of each ratio `total` rows."""
    counts = {ratio: round(total * ratio / 100) for ratio in ratios}
    for kind, have, need in (
        ("masked", len(masked), max(counts.values(), default=0)),
        ("normal", len(normal), total - min(counts.values(), default=total)),
    ):
        if need > have:
            raise ParamsError(
                f"a mixture of {total:,} rows at {list(ratios)} per cent needs {need:,} {kind} examples and there are {have:,}; "
                f"lower exp04.total, or raise exp04.{kind} and write the examples anew"
            )
    first, second = rng.sample(list(masked), len(masked)), rng.sample(list(normal), len(normal))
    places = {ratio: rng.sample(range(total), total) for ratio in ratios}
    out = {}
    for ratio, count in counts.items():
        rows = [*first[:count], *second[: total - count]]
        out[ratio] = [rows[place] for place in places[ratio]]
    return out


def authors(masked: Sequence[T], normal: Sequence[T], ratios: Sequence[int] = THEIRS) -> dict[int, list[T]]:
    """All of theirs are drawn, since one random stream goes through them; those asked for are given."""
    if strange := sorted(set(ratios) - set(THEIRS)):
        raise ParamsError(
            f"the authors mixed {list(THEIRS)} per cent and exp04.ratios asks for {strange}; mixing: nested takes any"
        )
    rng, out = Random(SEED), {}
    for ratio in THEIRS:
        many = int(len(masked) * ratio / 100)
        few = min(len(normal), int(many * ((100 - ratio) / ratio)))
        rows = [*rng.sample(list(normal), few), *rng.sample(list(masked), many)]
        rng.shuffle(rows)
        out[ratio] = rows
    return {ratio: out[ratio] for ratio in ratios}
