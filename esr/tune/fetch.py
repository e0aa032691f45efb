"""Checkpoints as DVC has them: pulled where they are not here, refused where they are not what their stage makes.

Where DVC is not installed, a checkpoint's own note says what it was made from. That is held against the recipe, the mixture and the base
that lie here, and a warning says who vouched.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from esr.errors import DataError
from esr.tune.checkpoint import ABOUT, ADAPTER, Checkpoint, differs, name, opened
from esr.tune.places import FOLDER, Course, Places, stage
from esr.tune.settings import Tuning

if TYPE_CHECKING:
    from esr.study.study import Study

log = logging.getLogger(__name__)


def checkpoints(study: "Study", places: Places | None = None) -> list[Checkpoint]:
    """One of each training, in their order. The fake engine adapts nothing, so it is given names alone."""
    where, wanted = places or Places(study.model), study.params.of(Tuning).courses
    if study.backend == "fake":
        return [Checkpoint(name(study.model, one), one, where.relative(where.checkpoint(one) / ADAPTER)) for one in wanted]
    lacking = [one for one in wanted if not (where.checkpoint(one) / ABOUT).is_file()]
    if installed():
        if lacking:
            _pull(where, [stage(study.model, one) for one in lacking])
        _as_recorded(where, [stage(study.model, one) for one in wanted])
    elif not lacking:
        _as_noted(study, where, wanted)
    return [opened(study.params, where, one) for one in wanted]


def installed() -> bool:
    """Whether DVC is."""
    return find_spec("dvc") is not None


def record(places: Places, wanted: Sequence[Course]) -> None:
    """DVC is told that what lies here of this model is what its stages make; other models' are left as they are."""
    made = [f"{FOLDER}/dvc.yaml:{step}-{places.model}" for step in ("examples", "mixtures")]
    done = _dvc(places, "commit", "--force", *made, *(stage(places.model, one) for one in wanted))
    if done.returncode:
        raise DataError(
            f"the checkpoints of {places.model!r} are there and DVC could not be told{_reason(done.stderr)}; where params have other ratios or "
            f"seeds than {FOLDER}/dvc.yaml, `python -m esr.tune stages` writes it anew, and the same line goes on"
        )


def _as_noted(study: "Study", places: Places, wanted: Sequence[Course]) -> None:
    for one in wanted:
        if changed := differs(study.params, places, one):
            raise DataError(
                f"the checkpoint '{one}' of {places.model!r} was made from another {' and another '.join(changed)}; "
                f"`python -m esr.tune all {places.model}` makes it anew"
            )
    log.warning(
        "DVC is not installed: that these %d checkpoints are those that were recorded, only their own notes say", len(wanted)
    )


def _dvc(places: Places, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "dvc", *words], cwd=places.root, capture_output=True, text=True, check=False)


def _pull(places: Places, stages: Sequence[str]) -> None:
    log.info("%d checkpoints are asked of DVC", len(stages))
    done = _dvc(places, "pull", *stages)
    if done.returncode:
        raise DataError(
            f"{len(stages)} checkpoints of {places.model!r} are not here and DVC has not got them{_reason(done.stderr)}; `dvc repro {stages[0]}` makes one, "
            f"`dvc repro {FOLDER}/dvc.yaml` all, or give DVC the remote that holds them"
        )


def _reason(stderr: str) -> str:
    """DVC's own first word of what went wrong, in brackets."""
    errors = [line.removeprefix("ERROR: ").strip(" :") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    return f" ({errors[0][:300]})" if errors else ""


def _as_recorded(places: Places, stages: Sequence[str]) -> None:
    """What lies here is what dvc.lock names, made from what its stage depends on now. A mixture that was never pulled says nothing."""
    done = _dvc(places, "status", "--json", *stages)
    try:
        told: dict[str, list[Any]] = json.loads(done.stdout or "{}")
    except ValueError:
        told = {}
    if done.returncode:
        raise DataError(
            f"DVC cannot say whether the checkpoints of {places.model!r} are those it recorded: {' '.join(done.stderr.split())[:300]}"
        )
    changed = {name: found for name, parts in told.items() if (found := _changed(parts))}
    if changed:
        first, why = next(iter(changed.items()))
        raise DataError(
            f"{len(changed)} checkpoints are not what DVC recorded, first {first} ({', '.join(why)}); `dvc repro {first}` makes it anew"
        )


def _changed(parts: Sequence[Any]) -> list[str]:
    """Of one stage, as `dvc status --json` tells it."""
    found = []
    for part in parts:
        if isinstance(part, str):  # such as `changed command`
            found.append(part)
            continue
        for kind, files in part.items():
            found += [f"{file} is {state}" for file, state in files.items() if kind == "changed outs" or state == "modified"]
    return found
