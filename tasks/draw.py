"""What a person looks at: never cached, drawn from the store."""

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from esr.show import closing_table as table
from esr.show import figures
from esr.show import reply_sample as sample
from tasks import board
from tasks.study import Study


@task(name="draw.closing", cache_policy=NO_CACHE)
def closing(study: Study) -> int:
    """The closing table as an artifact of the run."""
    lines = table.lines(study.bench.store, study.params, study.experiment, study.model, study.judge)
    rows = [dict(zip(table.HEADER, line.cells(), strict=True)) for line in lines]
    create_table_artifact(table=rows, key=study.key("closing"), description=f"{study.title}. {table.NOTE}")
    return len(rows)


@task(name="draw.sample", cache_policy=NO_CACHE)
def sampled(study: Study) -> int:
    """Some graded replies with their attempts marked."""
    rows = sample.replies(study.bench.store, study.experiment, study.model, study.scale, study.judge, study.params.seed)
    create_markdown_artifact(sample.markdown(rows), key=study.key("replies"), description=f"{study.title}: a sample of replies")
    return len(rows)


@task(name="draw.figure", cache_policy=NO_CACHE)
def figure(study: Study) -> list[str]:
    """The experiment's figures, drawn from the recorded results; where they are."""
    paths = figures.draw(study.bench.store, study.params, study.experiment, study.model, study.judge)
    pictures = [path for path in paths if path.suffix == ".png"]
    create_markdown_artifact(sample.pictures(pictures), key=study.key("figure"), description=f"{study.title}: figures")
    board.head.figures = pictures
    return [str(path) for path in paths]
