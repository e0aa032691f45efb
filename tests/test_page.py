"""What a person sees in Prefect's pages: the run of a deployment, its judge task that was tried again, and its artifacts."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flow_runs import place
from judge_server import Provider, Schedule

from esr.params import HOME
from esr.store import Store
from esr.view.address import of_run

pytestmark = pytest.mark.slow

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """Overloaded until somebody sees it recover."""
    server = Provider(schedule=Schedule(refuse=529)).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, prefect_api: str, provider: Provider) -> dict[str, str]:
    root = tmp_path_factory.mktemp("page")
    where = place(root, {"haiku-4.5": {"per_minute": 0}})
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("attempts: 6", "attempts: 1"))
    env = {**os.environ, **where.env, "PREFECT_API_URL": prefect_api, "PATH": f"{BIN}:{os.environ['PATH']}"}
    env |= {"ANTHROPIC_BASE_URL": provider.url, "ANTHROPIC_API_KEY": "sk-local"}
    said = subprocess.run(
        [BIN / "python", "-m", "deployments", "env"], env=env, cwd=HOME, capture_output=True, text=True, check=True
    )
    return env | dict(line.removeprefix("export ").split("=", 1) for line in said.stdout.splitlines())


@pytest.fixture(scope="module")
def flow_run(
    environment: dict[str, str], provider: Provider, prefect_api: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """`prefect deployment run exp08/tiny` by the way that docs/deployments.md tells, from pools to the finished run.

    The provider recovers when Prefect has put the judge's task off.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    def prefect(*words: str) -> None:
        subprocess.run([BIN / "prefect", *words], env=environment, cwd=HOME, check=True, capture_output=True, timeout=600)

    subprocess.run([BIN / "python", "-m", "deployments", "init"], env=environment, cwd=HOME, check=True, capture_output=True)
    prefect("--no-prompt", "deploy", "--name", "exp08/tiny", "--prefect-file", "deployments/prefect.yaml")
    log = (tmp_path_factory.mktemp("worker") / "worker.log").open("w")
    worker = subprocess.Popen(
        [BIN / "prefect", "worker", "start", "--pool", "cpu", "--limit", "1"],
        env=environment, cwd=HOME, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        prefect("deployment", "run", "exp08/tiny", "--param", "scale=smoke", "--param", "judge=haiku-4.5")
        with temporary_settings({PREFECT_API_URL: prefect_api}), get_client(sync_client=True) as client:
            until = time.monotonic() + 600
            while time.monotonic() < until:
                runs = [run for run in client.read_flow_runs() if run.deployment_id and "exp08" in run.tags]
                if runs and runs[0].state and runs[0].state.is_final():
                    break
                if any(task.state_name == "AwaitingRetry" for task in client.read_task_runs()):
                    provider.schedule.refuse = 0
                time.sleep(0.2)
            assert runs[0].state.is_completed(), Path(log.name).read_text()[-3000:]
            yield runs[0]
    finally:
        os.killpg(worker.pid, signal.SIGKILL)  # told to end, Prefect's worker sometimes waits for ever
        worker.wait()


@pytest.fixture(scope="module")
def page(flow_run: Any) -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no Chromium here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1400, "height": 1100})
        tab.set_default_timeout(60_000)
        yield tab
        browser.close()


def shows(page: Any, text: str) -> None:
    """The text is among what a person reads on the page, at the latest after a minute."""
    from playwright.sync_api import TimeoutError as NotShown

    try:
        page.wait_for_function("text => document.body.innerText.includes(text)", arg=text)
    except NotShown:
        pytest.fail(f"{text!r} is not on {page.url}:\n{page.inner_text('body')}")


def judge_task(flow_run: Any, prefect_api: str) -> Any:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.settings import PREFECT_API_URL, temporary_settings

    mine = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
    with temporary_settings({PREFECT_API_URL: prefect_api}), get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=mine)
    tried = [task for task in tasks if task.run_count > 1]
    assert tried, {task.name: task.run_count for task in tasks}
    assert all(task.name.startswith("judge.grades") for task in tried)
    return tried[0]


def test_the_run_and_its_judge_task_that_was_tried_again_are_on_its_pages(page: Any, flow_run: Any, prefect_api: str) -> None:
    task = judge_task(flow_run, prefect_api)
    page.goto(prefect_api.replace("/api", f"/runs/flow-run/{flow_run.id}"))
    for text in (flow_run.name, "exp08", "Completed"):
        shows(page, text)
    page.goto(prefect_api.replace("/api", f"/runs/task-run/{task.id}"))
    for text in (task.name, "Completed", "answered none of the last", "Retries"):
        shows(page, text)


def test_its_artifacts_can_be_read_on_its_page(page: Any, flow_run: Any, prefect_api: str, environment: dict[str, str]) -> None:
    page.goto(prefect_api.replace("/api", _latest(prefect_api, flow_run, "closing")))
    shows(page, "exp08/no-steering")
    for name in ("first score", "ESR − baseline"):
        box = page.get_by_text(name, exact=True).first.bounding_box()
        seen = page.evaluate(
            "([x, y]) => document.elementFromPoint(x, y)?.innerText", [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
        )
        assert seen == name, "no column is cut"
    page.goto(prefect_api.replace("/api", _latest(prefect_api, flow_run, "replies")))
    shows(page, "⟦attempt 1")
    page.goto(prefect_api.replace("/api", _latest(prefect_api, flow_run, "made")))
    shows(page, "python -m flows exp08 tiny --scale smoke --judge haiku-4.5")
    assert page.locator(f"a[href$='/runs/flow-run/{flow_run.id}']", has_text="logs and the other artifacts").count() == 1
    shows(page, "python -m esr view")
    store = Store(Path(environment["ESR_STORE"]))
    (lacking,) = store.sql("select sum(n_missing)::bigint as n from summary")["n"].to_pylist()
    assert re.search(rf"judge\s+72\s+\d+\s+{lacking}\s", page.inner_text("table") + "\n"), "what was tried again is counted once"
    (row,) = store.sql("select run_id from runs where experiment = 'exp08'")["run_id"].to_pylist()
    assert page.locator("a", has_text=f"#/runs?run={row}").get_attribute("href") == of_run(row)
    page.goto(prefect_api.replace("/api", _latest(prefect_api, flow_run, "figure")))
    picture = page.locator("img[src^='data:image/png']").first
    picture.wait_for()
    assert picture.evaluate("img => img.naturalWidth") > 100


def _latest(prefect_api: str, flow_run: Any, what: str) -> str:
    """Address of the page of an artifact of the run; other files' runs may be on the same server."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_api}), get_client(sync_client=True) as client:
        found = [
            artifact
            for artifact in client.read_artifacts()
            if artifact.flow_run_id == flow_run.id and artifact.key == f"exp08-tiny-engine-fake-smoke-haiku-4-5-{what}"
        ]
    return f"/artifacts/artifact/{found[0].id}"
