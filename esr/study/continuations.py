"""Trials that go on from a beginning: the arms of experiments 11 and 12, worked out from graded replies. Pure.

A continuation alone is graded; what the turn was begun with counts for nothing in its score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from esr.params import Params
from esr.study import beginnings
from esr.study.beginnings import Beginning, Graded, Spans
from esr.study.plan import Change, stream
from esr.types import Arm, Member

Begun = Sequence[tuple[Member, Beginning]]


@dataclass(frozen=True, slots=True)
class Condition:
    """How a reply is continued."""

    name: str
    change: Change
    against: str = ""
    """The condition that it is held against, at the same cut; empty: none."""


def detection(experiment: str, begun: Mapping[str, Begun], conditions: Sequence[Condition]) -> list[Member]:
    """Every beginning continued under every condition: an arm `off-40` for each cut and condition."""
    out = []
    for place, (cut, some) in enumerate(begun.items()):
        for one in conditions:
            against = f"{experiment}/{one.against}-{cut}" if one.against else ""
            level = float(cut) if cut.isdecimal() else None
            arm = Arm(experiment, f"{one.name}-{cut}", one.name, level, place, against)
            out += [replace(member, arm=arm, trial=begin(one.change(member.trial))) for member, begin in some]
    return out


def by_cut(
    sources: Sequence[Graded], spans: Sequence[Spans], characters: int, multiples: Sequence[int], sentences: bool
) -> dict[str, list[tuple[Member, Beginning]]]:
    """The beginnings of all sources by their cut, shortest first and a sentence's end last."""
    names = [*(str(multiple * characters) for multiple in multiples), *(["sentence"] if sentences else [])]
    found: dict[str, list[tuple[Member, Beginning]]] = {name: [] for name in names}
    for one, tokens in zip(sources, spans, strict=True):
        for name, begun in beginnings.cuts(one, tokens, characters, multiples, sentences).items():
            found[name].append((one.member, begun))
    return {name: some for name, some in found.items() if some}


MATCHED = {"own": "on-topic", "on-topic": "none", "shuffled": "none", "none": ""}
"""Arms of the matched prefix, each with what it is held against."""


def matched(
    params: Params, experiment: str, episodes: Sequence[tuple[Graded, Spans]], answers: Sequence[tuple[Graded, Spans]],
    *, tokens: int, draws: int,
) -> list[Member]:  # fmt: skip
    """Each episode's latent, boost and question again, `draws` times with new seeds, begun with its own corrective text, with the opening
    of the unsteered answer, with that shuffled, and with nothing. Seeds are new since an episode was chosen for what it did under its own.

    `answers`: the unsteered answers to the episodes' questions. Episodes of which a beginning is too short are left out.
    """
    answered = {_pair(one): (one, spans) for one, spans in answers}
    found: dict[str, list[Member]] = {name: [] for name in MATCHED}
    arms = {
        name: Arm(experiment, name, name, None, i, f"{experiment}/{on}" if on else "")
        for i, (name, on) in enumerate(MATCHED.items())
    }
    for one, spans in episodes:
        own = beginnings.corrective(one, spans, tokens)
        answer = answered.get(_pair(one))
        on_topic = beginnings.opening(*answer, tokens) if answer else None
        if own is None or answer is None or on_topic is None:
            continue
        begun = {
            "own": own,
            "on-topic": on_topic,
            "shuffled": beginnings.shuffled(params, *answer, tokens),
            "none": Beginning((), ""),
        }
        trial = one.member.trial
        rng = stream(params, "matched", trial.latent.index, trial.question, trial.seed)
        for seed in rng.sample(range(params.protocol.n_seeds), draws):
            for name, begin in begun.items():
                found[name].append(replace(one.member, arm=arms[name], trial=begin(replace(trial, seed=seed))))
    return [member for members in found.values() for member in members]


def _pair(one: Graded) -> tuple[int, str, int]:
    trial = one.member.trial
    return trial.latent.index, trial.question, trial.seed
