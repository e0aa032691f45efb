"""deployments/prefect.yaml, made from what experiments and models say of themselves.

`python -m deployments.definitions` writes it, with `--show` it is only printed.

Every experiment for every model. A test holds the file against this.
"""

import os
import sys

from deployments.pools import pools
from esr import params
from esr.experiment import known
from esr.params.places import HOME, experiments
from tasks import environment
from tasks.environment import HEARTBEAT

FILE = HOME / "deployments" / "prefect.yaml"
HEAD = """\
# Every experiment for every model, made by `python -m deployments.definitions`. `prefect deploy --all --prefect-file
# deployments/prefect.yaml`, then `prefect deployment run exp05/tiny`. docs/deployments.md has the way from nothing. No
# deployment runs by itself.

name: esr
prefect-version: 3.7.7

definitions:                    # a pool by what its workers hold: CUDA_VISIBLE_DEVICES=0 prefect worker start --pool gpu1 --limit 1
"""
BEAT = environment.settings(HOME)[HEARTBEAT]
"""Said by the deployment, however its worker was started: at Prefect's own pace of 180 s a run would be taken for dead between two beats."""
POOL = """\
  {name}: &{name}
    schedules: []
    concurrency_limit: {{limit: 1, collision_strategy: ENQUEUE}}
    work_pool: {{name: {name}}}
    job_variables: {{env: {{{HEARTBEAT}: "{BEAT}"}}}}
"""


def text() -> str:
    """Each model on the pool that it needs."""
    models = {name: model.pool for name, model in params.load().models.items()}
    files = experiments()
    lines = []
    lines.append("  # an engine for a run elsewhere, on each worker that is free")
    for pool in pools():
        given = f"entrypoint: flows/engine.py:engine, tags: [engine, {pool}], concurrency_limit: null"
        lines.append(f"  - {{<<: *{pool}, name: {pool}, {given}}}")
    for name, experiment in known().items():
        file = files[name]
        place = file.relative_to(HOME).as_posix() if file.is_relative_to(HOME) else file.as_posix()
        lines.append(f"  # {experiment.question}")
        for model, pool in models.items():
            given = f"tags: [{name}, {model}], parameters: {{model: {model}}}"
            lines.append(f"  - {{<<: *{pool}, name: {model}, entrypoint: {place}:{name}, {given}}}")
    return (
        HEAD
        + "".join(POOL.format(name=name, HEARTBEAT=HEARTBEAT, BEAT=BEAT) for name in pools())
        + "\ndeployments:\n"
        + "\n".join(lines)
        + "\n"
    )


def stale() -> str | None:
    """A sentence where the file is not what experiments and models say now. Experiments of other folders are not in it."""
    if os.environ.get("ESR_EXPERIMENTS") or FILE.read_text(encoding="utf-8") == text():
        return None
    return (
        "deployments/prefect.yaml is not what params.yaml and flows/ say now; "
        "`python -m deployments.definitions` makes it again, then once more `python -m deployments up`"
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--show"]:
        sys.stdout.write(text())
    else:
        FILE.write_text(text(), encoding="utf-8")
        sys.stderr.write(f"{FILE.relative_to(HOME)}: written\n")
