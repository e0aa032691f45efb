"""What a person looks at: never cached, drawn from the store."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from esr.show import closing_table, figures, reply_sample, timing_table
from esr.show import made as how_made
from esr.show.moment import moment
from tasks import page
from tasks.run import Run


@task(name="draw.closing", cache_policy=NO_CACHE)
def closing(run: Run) -> int:
    """The closing table as an artifact of the run."""
    with moment(run.study.store) as store:
        lines = closing_table.lines(store, run.params, run.experiment, run.selection)
        text = closing_table.markdown(lines, closing_table.note(store, run.selection, lines))
    create_markdown_artifact(text, key=run.artifact("closing"), description=run.title)
    return len(lines)


@task(name="draw.replies", cache_policy=NO_CACHE)
def replies(run: Run) -> int:
    """Some graded replies with their attempts marked."""
    with moment(run.study.store) as store:
        rows = reply_sample.replies(store, run.selection, run.params.seed)
    text = reply_sample.markdown(rows)
    create_markdown_artifact(text, key=run.artifact("replies"), description=f"{run.title}: a sample of replies")
    return len(rows)


@task(name="draw.figures", cache_policy=NO_CACHE)
def pictures(run: Run) -> list[str]:
    """The experiment's figures, drawn from the recorded results; where they are."""
    paths = figures.draw(run.study.store, run.params, run.experiment, run.selection)
    run.pictures += [path for path in paths if path.suffix == ".png"]
    text = reply_sample.pictures(run.pictures)
    create_markdown_artifact(text, key=run.artifact("figure"), description=f"{run.title}: figures")
    return [str(path) for path in paths]


@task(name="draw.made", cache_policy=NO_CACHE)
def made(run: Run) -> str:
    """How the run was made: the line that makes it again, its pages, what it cost, parameters that are not the committed ones."""
    title = f"**{run.title}**" + (", engine vllm" if run.study.backend == "vllm" else "")  # another is in the title
    stages, cost = run.progress.stages(), run.progress.cost
    addresses = {"page": page.address(run.flow_run), "view": page.view(run.row)}
    text = how_made.markdown(title, run.line, stages, cost, run.params, run.model, run.pictures, **addresses)
    create_markdown_artifact(text, key=run.artifact("made"), description=f"{run.title}: how it was made")
    return run.line


@task(name="draw.timing", cache_policy=NO_CACHE)
def timing(run: Run) -> int:
    """What watched latents do about the correction, as an artifact of the run."""
    rows = timing_table.rows(run.study.store, run.selection)
    text = timing_table.markdown(rows)
    create_markdown_artifact(text, key=run.artifact("timing"), description=f"{run.title}: watched latents about the correction")
    return len(rows)


USUAL = (closing, replies, pictures, made)
"""How most runs end."""
