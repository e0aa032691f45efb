"""Imported by every Python process that a test starts, as it starts: where it is measured, what it imports of others is not traced.

To trace what vLLM, Prefect and torch do as they are imported takes a third of that time, and says nothing of the code that is measured.
"""

import os
import sys
from importlib.machinery import SourceFileLoader
from threading import local
from types import ModuleType

MEASURED = ("esr", "tasks", "flows", "deployments")
"""As pyproject.toml says it."""
_aside = local()
_load = SourceFileLoader.exec_module


def _nothing() -> None:
    """A trace function takes effect at the next call."""


def _exec_module(self: SourceFileLoader, module: ModuleType) -> None:
    now, kept = sys.gettrace(), getattr(_aside, "trace", None)
    wanted = (now or kept) if module.__name__.partition(".")[0] in MEASURED else None
    if wanted is now:
        _load(self, module)
        return
    _aside.trace = now or kept
    sys.settrace(wanted)
    _nothing()
    try:
        _load(self, module)
    finally:
        _aside.trace = kept
        sys.settrace(now)
        _nothing()


if "COVERAGE_PROCESS_CONFIG" in os.environ:
    SourceFileLoader.exec_module = _exec_module
