"""What of a machine each of several engines gets: GPUs by their numbers, or a share of the cores."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from esr.engine import Backend
from esr.errors import EngineError, ParamsError

VARIABLE = "ESR_WORKERS"
"""How many processes, each with an engine of its own, serve as one; unset or 1: this process has the engine."""


POOL = "ESR_POOL"
"""The work pool whose workers they are; unset: they are processes of this machine."""


@dataclass(frozen=True, slots=True)
class Summons:
    """How workers elsewhere are called."""

    pool: str
    host: str
    """Address of this machine as they reach it."""
    call: Callable[[str, str], None]
    """One, given the address that it is to join and the key that it shows there."""


_summons: list[Summons] = []


def summon_by(summons: Summons) -> None:
    """From now on engines are made of workers that are called so."""
    _summons[:] = [summons]


def summons() -> Summons | None:
    if not os.environ.get(POOL):
        return None
    if not _summons:
        raise EngineError(f"${POOL} names a work pool, whose workers only a flow can call; unset it, or run a flow")
    return _summons[0]


def workers() -> int:
    asked = os.environ.get(VARIABLE) or "1"
    if not asked.isdecimal() or int(asked) < 1:
        raise ParamsError(f"{asked!r} workers were asked for; give a whole number from 1")
    return int(asked)


@dataclass(frozen=True, slots=True)
class Share:
    env: dict[str, str]
    cores: str = ""
    """With commas between; empty: all."""


def shares(n: int, per_engine: int, backend: Backend) -> list[Share]:
    """Of `n` engines, each of so many GPUs where this machine has some."""
    if backend == "fake":
        return [Share({})] * n
    gpus = visible()
    if gpus:
        if n * per_engine > len(gpus):
            raise EngineError(
                f"{n} workers of {per_engine} GPU{'s' * (per_engine > 1)} each were asked for and this machine has {len(gpus)}; "
                f"--workers {max(len(gpus) // per_engine, 1)} would do"
            )
        return [Share({"CUDA_VISIBLE_DEVICES": ",".join(gpus[i * per_engine : (i + 1) * per_engine])}) for i in range(n)]
    cores = sorted(os.sched_getaffinity(0))
    each = len(cores) // n
    if not each:
        raise EngineError(
            f"{n} workers were asked for and this machine has no GPU and {len(cores)} cores; --workers {len(cores)} would do"
        )
    return [
        Share({"OMP_NUM_THREADS": str(each)}, ",".join(map(str, cores[i * each : (i + 1) * each]))) for i in range(n)
    ]  # fmt: skip


def visible() -> list[str]:
    """GPUs that this process may use, by number or name."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [one.strip() for one in named.split(",") if one.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i, _ in enumerate(line for line in listed.stdout.splitlines() if line.startswith("GPU"))]
