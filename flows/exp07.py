"""Experiment 7: do judges agree, and would another judge find the same? (A.2.2)"""

from prefect import flow

from esr.experiment import Experiment, Figure, Several, Size
from esr.params import Params
from esr.show import crossed
from esr.show.figures import judges
from esr.study.cross import Cross
from flows import stages
from tasks import cross, draw


def size(params: Params) -> Size:
    asked = params.of(Cross)
    return Size(arms=0, trials=0, grades=len(asked.judges) * asked.size)


EXPERIMENT = Experiment(
    name="exp07",
    question="do judges agree, and would another judge find the same?",
    paper="A.2.2",
    settings=Cross,
    size=size,
    tables=(crossed.CROSSED,),
    figures=(
        Figure(
            "A.2.2. What each judge finds: {model}",
            judges.bars,
            several=Several("A.2.2. What each judge finds, by model", judges.across),
        ),
        Figure("A.2.2. How far judges agree: {model}", judges.matrix, name="agreement"),
    ),
    endings=(draw.pictures, draw.made),
)


@flow(**stages.options(EXPERIMENT))
def exp07(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Of the replies of chosen arms a sample is drawn, stratified by arm and by whether the judge sees a second attempt, each reply
    with the number that it stands for; every other judge grades what it has not graded of it. The restart detector is one of the
    judges. Nothing is generated but experiment 1's trials, where they are missing."""
    with stages.run(EXPERIMENT, model, scale, judge) as run:
        others = run.params.of(Cross).judges
        run.study.check(others)
        stages.baseline(run)
        sample = cross.sample(run)
        for name in [name for name in others if name != run.judge_name]:
            cross.grades(run, name, sample)
