"""Everything that a model's checkpoints need, one after the other, and the trainings side by side.

Each step runs in a process of its own: an engine that wrote examples has given its memory back when the first training begins. What is
there and was made from what lies here is left as it is, so a second call goes on where the first one ended.
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from esr.errors import DataError
from esr.params import Params
from esr.parent import end_with_parent
from esr.tune import checkpoint, environment
from esr.tune.places import Course, Places
from esr.tune.settings import Tuning

log = logging.getLogger(__name__)
POLL = 0.5


def everything(params: Params, places: Places, at_once: int) -> list[Course]:
    """Examples, mixtures, checkpoints, all of which are there afterwards. An example is not written twice: replies and answers are kept."""
    environment.versions()
    for step in ("examples", "mixtures"):
        log.info("%s of %s", step, places.model)
        if _begun((step, places.model)).wait():
            raise DataError(f"the {step} of {places.model!r} could not be made; what it said stands above")
    wanted = params.of(Tuning).courses
    lacking = [course for course in wanted if not current(params, places, course)]
    log.info("%d of %d checkpoints are to be trained, %d at once", len(lacking), len(wanted), at_once)
    side_by_side(places.model, lacking, at_once)
    return wanted


def current(params: Params, places: Places, course: Course) -> bool:
    """Whether the checkpoint is there and was made from what lies here."""
    return (places.checkpoint(course) / checkpoint.ABOUT).is_file() and not checkpoint.differs(params, places, course)


def side_by_side(model: str, courses: Sequence[Course], at_once: int) -> None:
    """A training that fails leaves the others alone; all that failed are named at the end."""
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // at_once))}
    waiting, running, failed = list(courses), dict[Course, "subprocess.Popen[bytes]"](), list[str]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                course = waiting.pop(0)
                running[course] = _begun(("train", model, str(course)), threads)
            time.sleep(POLL)
            for course in [course for course, process in running.items() if process.poll() is not None]:
                ended = running.pop(course).returncode
                failed += [str(course)] if ended else []
                log.info("%s %s; %d to come", course, "failed" if ended else "is there", len(waiting) + len(running))
    finally:
        for process in running.values():
            process.terminate()
    if failed:
        raise DataError(
            f"{len(failed)} of {len(courses)} trainings failed ({', '.join(failed)}); what they said stands above, the whole of it in "
            f"train.log of their .partial folders, and the same line goes on"
        )


def _begun(words: Sequence[str], env: dict[str, str] | None = None) -> "subprocess.Popen[bytes]":
    line = [sys.executable, "-m", "esr.tune", *words]
    return subprocess.Popen(line, env={**os.environ, **(env or {})}, preexec_fn=end_with_parent)
