"""The work pools, and the automation that marks dead runs, on the server that PREFECT_API_URL names."""

from datetime import timedelta

from esr import params
from esr.errors import ParamsError

CPU = "cpu"
AUTOMATION = "mark dead runs crashed"
SILENCE = timedelta(seconds=90)
"""Three heartbeats without one: the process is taken to be dead."""


def pools() -> dict[str, str]:
    """All that a model of params.yaml needs, and those that every deployment has, with what their workers hold."""
    needed = {model.pool for model in params.load().models.values()}
    return {name: _holds(name) for name in sorted({CPU, "gpu1", *needed})}


def of_devices(devices: str) -> str:
    """The pool of a worker that sees these: `0` is one GPU, `0,1` are two in one engine."""
    n = len(_each(devices))
    return CPU if not n else "gpu1" if n == 1 else f"gpu{n}tp"


def check(devices: str) -> None:
    """Before a worker is started: one of a pool that no model needs would have nothing to take."""
    if of_devices(devices) not in pools():
        words = _each(devices)
        raise ParamsError(
            f"--gpus {devices}: no model of params.yaml takes {len(words)} GPUs in one engine, which its `tensor_parallel` or "
            f"`pipeline_parallel` would say; `--gpus {' '.join(words)}` are {len(words)} workers of one GPU each"
        )


def _each(devices: str) -> list[str]:
    return [one.strip() for one in devices.split(",") if one.strip()]


def _holds(pool: str) -> str:
    if pool == CPU:
        return "models whose weights are a folder of the checkout, on cores"
    n = int("".join(filter(str.isdigit, pool)))
    return (
        "models that fit one GPU; one worker a GPU"
        if n == 1
        else f"models that take {n} GPUs in one engine; one worker for every {n}"
    )


def make() -> list[str]:
    """Makes what is missing and leaves the rest; can be repeated. A line for each."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    said = []
    with get_client(sync_client=True) as client:
        for name, description in pools().items():
            try:
                client.read_work_pool(name)
                said.append(f"work pool {name}: is there")
            except ObjectNotFound:
                client.create_work_pool(WorkPoolCreate(name=name, type="process", description=description))
                said.append(f"work pool {name}: made")
    return [*said, automate()]


def automate() -> str:
    """A run whose heartbeat stops becomes CRASHED instead of running for ever."""
    from prefect.automations import Automation
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture

    with get_client(sync_client=True) as client:
        if client.read_automations_by_name(AUTOMATION):
            return f"automation {AUTOMATION!r}: is there"
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
    return f"automation {AUTOMATION!r}: made"
