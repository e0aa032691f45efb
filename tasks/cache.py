"""The house cache key: a task's name, its inputs, and the code that it rests on.

Prefect's own INPUTS key lets two tasks with equal arguments get each other's results, and TASK_SOURCE hashes a thin task's
own lines and nothing that it calls.
"""

import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from prefect.cache_policies import CacheKeyFnPolicy, CachePolicy
from prefect.context import TaskRunContext

from esr.types import content_id
from tasks import environment


def on(*modules: str) -> CachePolicy:
    """A policy for a task that rests on these modules; a package stands for every file in it, prompts included."""

    def key(context: TaskRunContext, inputs: dict[str, Any]) -> str:
        task = context.task.name
        return f"{task}-{content_id(task, {name: plain(value) for name, value in inputs.items()}, [code(m) for m in modules])}"

    return CacheKeyFnPolicy(cache_key_fn=key)


def plain(value: Any) -> Any:
    """The input as JSON: a study is what its results depend on, not which experiment asks."""
    return value.facts if hasattr(value, "facts") else value


@cache
def code(module: str) -> str:
    """Hash of a module's source, or of all files of a package, found without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"a cache key names the module {module!r} and there is none")
    folder = Path(spec.origin).parent
    paths = [p for p in folder.rglob("*") if p.suffix in (".py", ".txt", ".sql", ".csv", ".json")]
    files = sorted(paths) if spec.submodule_search_locations else [Path(spec.origin)]
    return hashlib.sha256(b"\0".join(p.name.encode() + p.read_bytes() for p in files)).hexdigest()[:16]


def kept(policy: CachePolicy) -> dict[str, Any]:
    """Options of a task whose value is kept under this policy, as JSON, in the store."""
    return {
        "cache_policy": policy,
        "persist_result": True,
        "result_storage": environment.results(),
        "result_serializer": "json",
        "cache_result_in_memory": False,
    }
