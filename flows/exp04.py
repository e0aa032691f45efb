"""Experiment 4: does fine-tuning teach a model to correct itself under steering, and at what price? (§3.5, figure 7)"""

from prefect import flow

from esr.experiment import Experiment, Figure, Size
from esr.params import Params
from esr.show import tables
from esr.show.figures import tuned
from esr.study.choose import Baseline
from esr.tune import evaluate, provider
from esr.tune.checkpoint import with_checkpoints
from esr.tune.settings import Tuning
from flows import stages
from tasks import draw, tune


def size(params: Params) -> Size:
    exp = params.of(Tuning)
    latents, checkpoints = min(exp.latents, params.of(Baseline).latents), len(exp.courses)
    written = exp.masked + exp.normal if exp.writer == "provider" else 0
    told = sum(course.ratio in exp.told for course in exp.courses)
    return Size(
        arms=2 * (1 + checkpoints) + 1 + told,
        trials=latents * exp.trials_per_latent,
        searched=latents * checkpoints,
        texts=written,
        texts_cost=provider.cost(params, exp),
    )


EXPERIMENT = Experiment(
    name="exp04",
    question="does fine-tuning teach it to correct itself?",
    paper="§3.5, figure 7",
    settings=Tuning,
    size=size,
    baseline=False,
    siblings=True,
    beside=(),
    tables=(tables.OUTCOMES,),
    figures=(
        Figure("Figure 7. Fine-tuned for self-correction: {model}", tuned.curves),
        Figure("Figure 7. Told, or fine-tuned: {model}", tuned.companions, name="companions"),
    ),
    endings=draw.USUAL,
)


@flow(**stages.options(EXPERIMENT))
def exp04(model: str, scale: str = "full", judge: str | None = None) -> None:
    """Checkpoints that DVC has are steered with the same latents on the same questions with the same seeds as their base, each at
    thresholds found for it anew; and not steered at all, to see how often they correct themselves without a reason. The base and all
    checkpoints answer in one batch of one engine."""
    with stages.run(EXPERIMENT, model, scale, judge) as run:
        exp, checkpoints = run.params.of(Tuning), tune.checkpoints(run)
        run.extend(with_checkpoints(run.params, model, checkpoints))
        found = stages.thresholds(run)[: exp.latents]
        members = stages.planned(run, found, evaluate.BASE, exp.trials_per_latent)
        members += evaluate.without_steering(members, evaluate.FALSE_ALARMS) + evaluate.watchful(members, evaluate.TOLD)
        runs = [run.of_model(one.name) for one in checkpoints]
        searched = stages.thresholds_anew(runs, [one.latent for one in found])
        for one, on, bites in zip(checkpoints, runs, searched, strict=True):
            arm = evaluate.arm(one, len(exp.seeds))
            steered = evaluate.of_base(stages.planned(on, bites, arm, exp.trials_per_latent), model)
            members += steered + evaluate.without_steering(steered, evaluate.false_alarms(arm))
            members += evaluate.watchful_too(steered, arm, exp.told)
        stages.carry_out(run, members)
