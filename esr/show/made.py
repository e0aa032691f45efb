"""How a run was made, as a page: the line that makes it again, what it cost, parameters that are not the committed ones."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from esr.params import Params
from esr.record import changed
from esr.study.progress import Stage


def markdown(
    title: str, line: str, stages: Sequence[Stage], cost: float | None, params: Params, model: str, pictures: Iterable[Path],
    *, page: str | None = None, view: str | None = None,
) -> str:  # fmt: skip
    """`page`: the address of the run's own page in Prefect, where there is one; `view`: of that in the viewer."""
    told = "unknown, a price is not known" if cost is None else f"${cost:.2f}"
    rows = [f"| {stage.name} | {stage.done:,} | {stage.stored:,} | {stage.missing:,} |" for stage in stages]
    parts = [
        title,
        f"Made again, or gone on with, by\n\n```sh\n{line}\n```",
        *([f"Its page in Prefect: [logs and the other artifacts]({page})"] if page else []),
        *(
            [
                f"Its arms, trials and replies to read: `python -m esr view` where the store is, then [#/{view.split('#/')[1]}]({view})"
            ]
            if view
            else []
        ),
        f"Cost of judging in this run: {told}",
        "\n".join(["| stage | done | of it stored before | missing |", "|---|---:|---:|---:|", *rows]),
        changed.markdown(changed.changed(params, model)),
        *(f"Figure: `{picture}`" for picture in pictures),
    ]
    return "\n\n".join(parts)
