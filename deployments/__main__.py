"""`python -m deployments init`: work pools and the automation that marks dead runs, on the server that PREFECT_API_URL names.

`python -m deployments env` prints the settings that server, worker and shell should share, for `eval "$(…)"`.
"""

import os
import shlex
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from tasks import environment

POOLS = {"cpu": "flows on the shipped models", "gpu": "flows on the published models, one worker a GPU"}
AUTOMATION = "mark dead runs crashed"
PATIENCE = 60.0
"""Seconds that a server gets to start."""
SILENCE = timedelta(seconds=90)
"""Three heartbeats without one: the process is taken to be dead."""


def main(words: list[str]) -> int:
    match words:
        case ["env"]:
            settings = environment.settings(environment.home()) | {"PREFECT_API_URL": url()}
            print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in settings.items()))
            return 0
        case ["init"]:
            return init()
    print(__doc__, file=sys.stderr)
    return 2


def url() -> str:
    return os.environ.get("PREFECT_API_URL") or "http://127.0.0.1:4200/api"


def init() -> int:
    """Makes what is missing and leaves the rest; can be repeated."""
    os.environ.setdefault("PREFECT_API_URL", url())
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        if not answers(client.api_healthcheck):
            print(f"error: no Prefect server answers at {url()}; start one with `prefect server start`", file=sys.stderr)
            return 2
        for name, description in POOLS.items():
            try:
                client.read_work_pool(name)
                print(f"work pool {name}: is there")
            except ObjectNotFound:
                client.create_work_pool(WorkPoolCreate(name=name, type="process", description=description))
                print(f"work pool {name}: made")
    automate()
    return 0


def answers(healthcheck: Callable[[], Exception | None]) -> bool:
    """Whether a server is there; one that was started in the line before takes some seconds."""
    patience = time.monotonic() + PATIENCE
    if healthcheck() is None:
        return True
    print(f"waiting up to {PATIENCE:.0f} s for the Prefect server at {url()}", file=sys.stderr)
    while time.monotonic() < patience:
        time.sleep(0.5)
        if healthcheck() is None:
            return True
    return False


def automate() -> None:
    """A run whose heartbeat stops becomes CRASHED instead of running for ever."""
    from prefect.automations import Automation
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture

    with get_client(sync_client=True) as client:
        if client.read_automations_by_name(AUTOMATION):
            print(f"automation {AUTOMATION!r}: is there")
            return
    Automation(
        name=AUTOMATION,
        description="A flow run that has sent no heartbeat for 90 seconds is dead: killed, out of memory, or its machine is gone.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={
                "prefect.flow-run.heartbeat",
                "prefect.flow-run.Completed",
                "prefect.flow-run.Failed",
                "prefect.flow-run.Cancelled",
                "prefect.flow-run.Crashed",
            },
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message="no heartbeat for 90 seconds")],
    ).create()
    print(f"automation {AUTOMATION!r}: made")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
