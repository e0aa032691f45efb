"""Of a failure, the log of a run holds one traceback at most, and the sentence last."""

import logging

import pytest

from esr.errors import JudgeError
from tasks.page import LOGGERS, ONCE, told_once


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter("%(message)s").format(record))


@pytest.mark.parametrize(("error", "tracebacks"), [(JudgeError("no key"), 0), (ZeroDivisionError("a fault"), 1)])
def test_a_failure_is_told_with_its_traceback_once_at_most(error: Exception, tracebacks: int) -> None:
    kept = Kept()
    told_once()
    told_once()
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
