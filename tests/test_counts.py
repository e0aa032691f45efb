"""What a person is told of one run: how much of its own plan is there, what is lacking, and what its page in Prefect says."""

from collections.abc import Iterator

import pytest
import yaml
from flow_runs import LATENTS, SMOKE, Place, place
from rich.console import Console

from esr.study.progress import Progress

pytestmark = pytest.mark.slow

TRIALS = LATENTS * SMOKE["exp01"]["trials_per_latent"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[Place]:
    """exp05 run once in this process."""
    where = place(tmp_path_factory.mktemp("counts"))
    with where.prefect(prefect_api):
        from flows.exp05 import exp05

        exp05("tiny", scale="smoke")
        yield where


def told(experiment: str) -> str:
    from flows import foreground, stages
    from tasks.run import Run

    run = Run.of(experiment, "tiny", "smoke")
    return foreground.plan(run, stages.there(run))


def changed(where: Place, **protocol: object) -> None:
    file = where.root / "params.yaml"
    tree = yaml.safe_load(file.read_text())
    tree["scales"]["smoke"].setdefault("protocol", {}).update(protocol)
    file.write_text(yaml.safe_dump(tree, sort_keys=False))


def test_what_is_there_is_counted_of_the_plan_of_this_run(here: Place) -> None:
    text = (here.root / "params.yaml").read_text()
    assert f"{TRIALS} replies and {TRIALS} grades of at most {TRIALS} trials are there" in told("exp01")
    assert f"{3 * TRIALS} replies and {3 * TRIALS} grades of at most {3 * TRIALS} trials are there" in told("exp05")
    assert f"{TRIALS} replies and {TRIALS} grades of at most {2 * TRIALS} trials are there" in told("exp08")
    try:
        changed(here, temperature=0.25)
        assert "thresholds have not been searched with these settings" in told("exp05")
        (here.root / "params.yaml").write_text(text)
        changed(here, max_tokens=77)
        assert "nothing of it is there yet" in told("exp05")
    finally:
        (here.root / "params.yaml").write_text(text)


def test_fewer_latents_than_asked_for_are_said_before_and_meanwhile(here: Place) -> None:
    text = (here.root / "params.yaml").read_text()
    tree = yaml.safe_load(text)
    tree["scales"]["smoke"]["exp01"]["latents"] = 100_000
    try:
        (here.root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        assert "100,000 latents are asked for and 400 have a label" in told("exp01")
    finally:
        (here.root / "params.yaml").write_text(text)


def test_a_warning_of_the_library_is_said_once_on_the_terminal() -> None:
    import logging

    from flows import foreground

    console = Console(record=True, width=200, force_terminal=False)
    with foreground.progress(Progress(), console):
        for _ in range(3):
            logging.getLogger("esr.study.choose").warning("100 latents were asked for and %d are used", 50)
    assert console.export_text().count("100 latents were asked for and 50 are used") == 1


def test_a_flow_runs_page_says_what_it_is_and_how_to_make_it_again(here: Place) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        runs = {run.name: run for run in client.read_flow_runs(limit=200)}
        texts = {artifact.key: str(artifact.data) for artifact in client.read_artifacts()}
    assert {"exp05", "tiny", "smoke"} <= set(runs["exp05-tiny-smoke"].tags)
    made = texts["exp05-tiny-engine-fake-smoke-lexical-made"]
    assert "python -m flows exp05 tiny --scale smoke" in made
    assert "| `exp01.latents` |" in made
    assert "Cost of judging in this run: $0.00" in made
    assert f"/runs/flow-run/{runs['exp05-tiny-smoke'].id})" in made
    tables = texts["exp05-tiny-engine-fake-smoke-lexical-closing"].split("\n\n")
    assert [table.splitlines()[0].count("|") for table in tables[:2]] == [7, 7], "in one table the last columns would be cut"
    assert "| arm | dose | multi − baseline | ESR − baseline | multi, equal score | ESR, equal score |" in tables[1]
    assert "| exp05/self_monitor |" in tables[0]
    assert "| exp05/self_monitor |" in tables[1]
    sample = texts["exp05-tiny-engine-fake-smoke-lexical-replies"]
    assert "python -m esr show" in sample
    assert "⟦end 1⟧" in sample
    assert "> and: " in sample
