"""What the paper reports, as numbers: drawn and tabled beside ours for the published models."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@cache
def _reported() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((files("esr.show") / "paper.yaml").read_text(encoding="utf-8"))
    return found


def reported(experiment: str, model: str, arm: str, metric: str) -> float | None:
    """A rate in [0, 1], a score, or `n`; None: nothing is reported as a number, or not of this model.

    The paper pools its random sets, so `uniform-0`, `uniform-1`, … of exp10 all meet its one number.
    """
    named = arm.rsplit("-", 1)[0] if experiment == "exp10" else arm
    value = _reported().get(experiment, {}).get(model, {}).get(named, {}).get(metric)
    return None if value is None else float(value)
