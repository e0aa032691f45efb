"""Cached steps, whose keys are derived: from the inputs, from the code that the step rests on, and from what it read last time.

Every read of a study is noted (esr/study/reader.py) and the notes are kept beside the value. A step whose inputs and code are
the same is done already when everything that it read then has the same value now; what it did not read cannot make it stale.
"""

import inspect
import json
import os
import secrets
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext
from prefect.results import ResultRecord
from prefect.tasks import Task

from esr.study.reader import FACTS, Reader, value
from esr.study.study import Study
from esr.types import content_id
from tasks import code, environment
from tasks.run import Run
from tasks.values import Values


class Step(Task[..., Any]):
    """A task whose values lie in the store of the moment at which it is done, not of that at which it was imported."""

    @property
    def result_storage(self) -> Path:  # type: ignore[override]  # the base class has a plain attribute
        return environment.results()

    @result_storage.setter
    def result_storage(self, _given: object) -> None:
        pass


def step(name: str, **options: Any) -> Callable[[Callable[..., Any]], Task[..., Any]]:
    """Makes a cached task of a function whose first argument is a study; the task is given a Run in its place."""

    def of(body: Callable[..., Any]) -> Task[..., Any]:
        signature = inspect.signature(body)

        @wraps(body)
        def carried_out(*args: Any, **kwargs: Any) -> Any:
            given = dict(signature.bind(*args, **kwargs).arguments)
            run: Run = given.pop("study")
            notes = Notes(name, given, body.__module__)
            key, reader = notes.key(run.study), Reader(run.study)
            found = body(reader, **given)
            notes.put(key, reader.read)
            return found

        def key(_context: TaskRunContext, inputs: dict[str, Any]) -> str:
            given = dict(inputs)
            run: Run = given.pop("study")
            return Notes(name, given, body.__module__).key(run.study)

        return Step(
            carried_out,
            name=name,
            cache_policy=CacheKeyFnPolicy(cache_key_fn=key),
            persist_result=True,
            result_serializer=Values(),
            cache_result_in_memory=False,
            **options,
        )

    return of


def done(of: Task[..., Any], run: Run, **given: Any) -> Any:
    """What this step found the last time that it was asked the same; None: it would have to be done. Nothing is computed."""
    asked = inspect.signature(of.fn).bind_partial(**given)
    asked.apply_defaults()
    key = Notes(of.name, asked.arguments, of.fn.__module__).key(run.study)
    try:
        return ResultRecord.deserialize((environment.results() / key).read_bytes()).result
    except (OSError, ValueError):
        return None


class Notes:
    """What one step with these inputs and this code has read, each time that it was done."""

    def __init__(self, name: str, inputs: Mapping[str, Any], module: str) -> None:
        self.name = name
        self.base = content_id(name, Values().dumps(dict(inputs)).decode(), code.fingerprint(module), length=16)

    @property
    def file(self) -> Path:
        return environment.results() / "read" / f"{self.name}-{self.base}.json"

    def key(self, study: Study) -> str:
        """Of the time at which everything that was read had the values of now; where there was none, one of all that could be read."""
        now: dict[str, Any] = {}
        for noted in self.all():
            if all(now.setdefault(path, _plain(value(study, path))) == then for path, then in noted["read"].items()):
                return str(noted["key"])
        whole = {fact: value(study, fact) for fact in (*FACTS, f"sae/{study.spec.sae}")}
        return f"{self.name}-{content_id(self.base, study.params.digest, whole)}"

    def all(self) -> list[dict[str, Any]]:
        try:
            return list(json.loads(self.file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return []

    def put(self, key: str, read: Mapping[str, Any]) -> None:
        """Beside those that are there; of two processes that put at once, one may be lost and its step is done again."""
        new = {"key": key, "read": {path: _plain(then) for path, then in sorted(read.items())}}
        kept = [noted for noted in self.all() if noted["key"] != key]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        aside = self.file.with_name(f".{self.file.name}.{os.getpid()}.{secrets.token_hex(4)}")
        aside.write_text(json.dumps([*kept, new], ensure_ascii=False, indent=1), encoding="utf-8")
        aside.replace(self.file)


def _plain(found: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(found))
