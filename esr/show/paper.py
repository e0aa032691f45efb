"""What the paper reports, as numbers: drawn and tabled beside ours for the published models."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from esr.types import Arm


@cache
def _reported() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((files("esr.show") / "paper.yaml").read_text(encoding="utf-8"))
    return found


def reported(arm: Arm, model: str, metric: str) -> float | None:
    """A rate in [0, 1], a score, or `n`; None: nothing is reported as a number, or not of this model.

    Where the paper pools the arms of a kind, as its random sets, each of them meets the one number.
    """
    known = _reported().get(arm.experiment, {}).get(model, {})
    value = known.get(arm.name, known.get(arm.kind, {})).get(metric)
    return None if value is None else float(value)
