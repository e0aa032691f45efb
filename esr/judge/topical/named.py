"""The reference that a judge's block names, read once a process while its file stays as it is."""

from functools import lru_cache
from pathlib import Path

from esr.errors import JudgeError
from esr.judge.topical.judge import Topical
from esr.judge.topical.reference import Reference
from esr.params import JudgeParams, resolve


def named(spec: JudgeParams) -> Topical:
    path = resolve(spec.reference or "")
    if not path.is_file():
        raise JudgeError(
            f"judge {spec.name!r} knows replies by {spec.reference} and there is no such file; "
            f"`python -m esr judge reference MODEL --to {spec.reference}` makes it"
        )
    return Topical(spec.name, _read(path, path.stat().st_mtime_ns))


@lru_cache(maxsize=8)
def _read(path: Path, _changed: int) -> Reference:
    return Reference.read(path)
