"""Of a failure, the log of a run holds one traceback at most, and the sentence last."""

import ast
import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from esr.errors import JudgeError
from tasks import code
from tasks.page import LOGGERS, ONCE, told


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter("%(message)s").format(record))


@pytest.mark.parametrize(("error", "tracebacks"), [(JudgeError("no key"), 0), (ZeroDivisionError("a fault"), 1)])
def test_a_failure_is_told_with_its_traceback_once_at_most(error: Exception, tracebacks: int) -> None:
    kept = Kept()
    told()
    told()
    loggers = [logging.getLogger(name) for name in LOGGERS]
    try:
        for logger in loggers:
            logger.addHandler(kept)
            assert logger.filters.count(ONCE) == 1
        try:
            raise error
        except Exception as caught:
            for logger in loggers:
                logger.error("Encountered exception during execution: %r", caught, exc_info=True)
    finally:
        for logger in loggers:
            logger.removeHandler(kept)
    assert len(kept.lines) == len(LOGGERS)
    assert sum("Traceback" in line for line in kept.lines) == tracebacks
    assert str(error) in kept.lines[-1]


def test_what_the_library_says_reaches_the_log_of_a_run() -> None:
    said = logging.getLogger("esr")
    before = said.level
    try:
        said.setLevel(logging.NOTSET)
        told()
        assert logging.getLogger("esr.study.progress").isEnabledFor(logging.INFO)
    finally:
        said.setLevel(before)


def test_code_is_parsed_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    parse, at_once, most = ast.parse, 0, 0

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.005)
        at_once -= 1
        return parse(*args, **kwargs)  # type: ignore[call-overload]  # handed on as it came

    for known in (code.fingerprint, code.closure, code.imported, code.source):
        known.cache_clear()
    monkeypatch.setattr(ast, "parse", counted)
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(code.fingerprint, ["esr.errors", "esr.prompts", "esr.types", "esr.errors"]))
    assert most == 1
    assert len(found) == 3
