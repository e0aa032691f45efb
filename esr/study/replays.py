"""A study of one's own in one call: latents chosen, calibrated and steered, and the same trials replayed with one thing changed.

    study = Study.of("tiny", "smoke")
    replays.carry_out(study, "mine", {"told": suffixed("self_monitor"), "quiet": unsteered}, latents=12, trials_per_latent=4)

What flows/exp*.py do with Prefect's tasks, for a notebook or a script. The same question to the same store is generated and graded once,
whoever asks; a call that was killed is given again and goes on.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from esr.errors import DataError, ParamsError
from esr.params.places import experiments
from esr.prompts import evaluation
from esr.study import calibrate, choose, grade, norms, steer
from esr.study.plan import Change, plan, replay
from esr.types import BASELINE, Arm, Member

if TYPE_CHECKING:
    from esr.study.study import Study


def carry_out(
    study: "Study",
    experiment: str,
    changes: Mapping[str, Change],
    *,
    latents: int,
    trials_per_latent: int,
    questions: Sequence[str] | None = None,
    judge: str | None = None,
) -> list[Member]:
    """Steers at most so many latents at their thresholds, replays those trials once for each change, and has all of it graded.

    The steered trials are the arm `baseline` of `experiment`, which every other is compared with in pairs; each change is an arm by its
    name. Questions: the evaluation questions unless others are given. Judge: the model's own unless another is named; it calibrates in
    any case.
    """
    if experiment in experiments():
        raise ParamsError(f"{experiment!r} is an experiment of flows/, whose results this would replace; give yours another name")
    if BASELINE.name in changes:
        raise ParamsError(f"{BASELINE.name!r} are the steered trials that changes are compared with; give the change another name")
    grader = study.judge(judge) if judge else study.grader
    study.check([grader.name])
    found = [one for one in calibrate.thresholds(study, choose.latents(study, latents)) if one.bites]
    if not found:
        raise DataError(f"no latent of {study.model!r} meets the target at any boost; see the table thresholds")
    norms.measure(study, found)
    steered = plan(
        study.params,
        arm=Arm(experiment, BASELINE.name, BASELINE.kind, against=""),
        model=study.model,
        weights=study.weights,
        meaning=study.meaning,
        latents=[one.latent for one in found],
        thresholds={one.latent.index: one.boost for one in found},
        questions=evaluation() if questions is None else questions,
        trials_per_latent=trials_per_latent,
    )
    members = [*steered]
    for order, (name, change) in enumerate(changes.items(), start=1):
        members += replay(steered, Arm(experiment, name, "replay", order=order, against=steered[0].arm.key), change)
    study.store.put_members(members)
    steer.replies(study, [member.trial for member in members])
    grade.grades(study, members, grader)
    return members
