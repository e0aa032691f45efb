"""Every error that a user can meet, in one small tree.

    EsrError
    ├── ParamsError      (ValueError)    params.yaml, or a name that it should hold
    ├── SaeError         (ValueError)    an SAE or its labels that cannot be used as asked
    ├── EngineError      (RuntimeError)  the steering engine
    │   ├── SpecError    (ValueError)    an intervention or capture that the engine refuses
    │   └── Halted                       the engine was told to let go; what it had finished comes with it
    ├── JudgeError       (RuntimeError)  a judge or its provider
    │   └── JudgeBusy                    worth asking again later: rate limits, overload, time-outs
    ├── StoreError       (OSError)       the results folder
    └── DataError        (ValueError)    a file or a table that does not hold what it should

A message says what was asked, what was found and what would do, in one sentence.
"""

from collections.abc import Mapping
from typing import Any


class EsrError(Exception):
    """The root; the command line prints its message without a traceback and exits with 2."""


class ParamsError(EsrError, ValueError):
    pass


class SaeError(EsrError, ValueError):
    pass


class EngineError(EsrError, RuntimeError):
    pass


class SpecError(EngineError, ValueError):
    pass


class Halted(EngineError):
    def __init__(self, finished: Mapping[int, Any]) -> None:
        """finished: the outputs or readings that were complete, by their place among the requests."""
        super().__init__("the engine was told to let go of its work")
        self.finished = finished


class JudgeError(EsrError, RuntimeError):
    pass


class JudgeBusy(JudgeError):
    pass


class StoreError(EsrError, OSError):
    pass


class DataError(EsrError, ValueError):
    pass


def one_of(kind: str, asked: str, known: list[str], where: str) -> str:
    """`no model '70' in params.yaml; nearest: 70b; it has 70b, 8b, …`"""
    import difflib

    near = difflib.get_close_matches(asked, known, n=1, cutoff=0.5)
    hint = f"; nearest: {near[0]}" if near else ""
    return f"no {kind} {asked[:200]!r} in {where}{hint}; it has {', '.join(known)}"
