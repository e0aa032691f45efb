"""What vLLM and all that it is made of say goes into a file in the store, which an engine's error names.

A terminal is for what a person can act on; an engine's processes write to it unasked, some of it before any logging is set up. So they
have the file in place of stdout and stderr from their first moment, and in the process that opens them vLLM's logger writes there.
"""

import importlib
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import Any

from esr.errors import EngineError
from esr.params import store

KEPT = 20
"""Files of engines that are kept, this one included."""
FORMAT = "%(processName)s %(process)d %(levelname)s %(asctime)s %(name)s: %(message)s"
OWN = "VLLM_LOGGING_CONFIG_PATH"
"""Names a person's own way of logging, which then stands."""


def new(model: str) -> Path:
    """The file of an engine that is about to be opened."""
    folder = store() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    older = sorted(folder.glob("engine-*.log"))  # by the time in their names
    for file in older[: max(0, len(older) - KEPT + 1)]:
        file.unlink(missing_ok=True)
    path = folder / f"engine-{datetime.now():%Y%m%d-%H%M%S}-{model}-{os.getpid()}.log"
    path.touch()
    return path


def failure(told: str, path: Path) -> EngineError:
    """An error of the engine, whose file has the rest."""
    return EngineError(f"{told}; {path} has what it said")


def short(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def hear(path: Path) -> None:
    """vLLM's logger of this process writes there and nowhere else."""
    if os.environ.get(OWN):
        return
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
    said = logging.getLogger("vllm")
    for handler in [handler for handler in said.handlers if isinstance(handler, Kept)]:
        said.removeHandler(handler)
        handler.close()
    said.addHandler(Kept(path))
    said.propagate = False
    said.setLevel(os.environ.get("VLLM_LOGGING_LEVEL") or "INFO")


class Kept(logging.FileHandler):
    """The one handler of ours."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, delay=True)
        self.setFormatter(logging.Formatter(FORMAT))


@dataclass(frozen=True)
class Into:
    """The work of a process, all of whose output goes into a file. Handed to a new process by its name, so that the file is
    there before what does the work is imported."""

    work: Callable[..., Any]
    path: Path

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        redirect(self.path)
        return self.work(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path, str, str]]:
        return begun, (self.path, self.work.__module__, self.work.__qualname__)


def begun(path: Path, module: str, name: str) -> Any:
    """In the new process."""
    redirect(path)
    return reduce(getattr, name.split("."), importlib.import_module(module))


def redirect(path: Path) -> None:
    with suppress(OSError):  # a log that cannot be written is no reason not to work
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        sys.stdout.flush()
        sys.stderr.flush()
        for stream in (1, 2):
            os.dup2(file, stream)
        os.close(file)
    hear(path)


def into(path: Path) -> None:
    """From now on the processes that vLLM starts for an engine write there, and vLLM in this one."""
    hear(path)
    from vllm.v1.engine.core import EngineCoreProc

    plain = EngineCoreProc.run_engine_core
    vars_of: Any = EngineCoreProc
    vars_of.run_engine_core = Into(plain.work if isinstance(plain, Into) else plain, path)
