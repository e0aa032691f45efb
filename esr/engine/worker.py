"""One engine in a process of its own: what `esr/engine/fleet.py` starts, `python -m esr.engine.worker FD CORES`.

It is asked and answers over the socket FD, any number of calls at once, and says every few seconds that it lives. When the socket
closes, whoever asked is gone, and it ends at once with all that it started: it leads a session of its own. With `join HOST:PORT` it is a
worker of another machine: it shows the fleet's key, $ESR_FLEET_KEY, and also ends when it has heard nothing for a while.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection
from typing import Any, NoReturn

from esr.engine import Engine
from esr.engine import log as engine_log
from esr.engine.hand import SILENCE
from esr.engine.open import alone
from esr.errors import EngineError, EsrError, Halted
from esr.params.weights import identity

BEAT = 5.0
"""Seconds between two signs of life."""
KEY = "ESR_FLEET_KEY"
AT_ONCE = 64
"""Calls at work at most; further ones wait."""


class Worker:
    def __init__(self, line: Connection, patience: float | None = None) -> None:
        self.line, self._patience = line, patience
        self._sending = threading.Lock()
        self._calls = ThreadPoolExecutor(AT_ONCE)
        self._engine: Engine | None = None

    def tell(self, *message: Any) -> None:
        with self._sending:
            self.line.send(message)

    def beat(self) -> None:
        pause = threading.Event()
        with suppress(OSError):
            while not pause.wait(BEAT):
                self.tell("beat")

    def listen(self) -> None:
        """Until whoever asks is gone or has had enough."""
        while True:
            try:
                if not self.line.poll(self._patience):
                    end()
                what, *rest = self.line.recv()
            except (EOFError, OSError):
                end()
            if what == "open":
                threading.Thread(target=self.guarded, args=(self.open, *rest), daemon=True).start()
            elif what == "call" and rest[1] == "load_directions":
                self.guarded(self.call, *rest)  # before whatever names them
            elif what == "call":
                self._calls.submit(self.guarded, self.call, *rest)
            elif what == "halt" and self._engine is not None:
                self._engine.halt()
            elif what == "close":
                if self._engine is not None:
                    self._engine.halt()
                    self._engine.close()
                end(0)

    def guarded(self, work: Callable[..., None], *given: Any) -> None:
        try:
            work(*given)
        except OSError:  # nobody listens any more
            end()

    def open(self, *given: Any) -> None:
        """It says what engine it has, and what weights by their content: the engine's fingerprint has only their name."""
        params, model, backend, *_ = given
        try:
            self._engine = alone(*given)
            weights = "" if backend == "fake" else identity(params, model)
        except EsrError as error:
            self.tell("refused", str(error))
        except Exception as error:
            self.tell("refused", f"an engine's process met {type(error).__name__} as it opened: {engine_log.short(error)}")
        else:
            self.tell("opened", self._engine.fingerprint, weights)

    def call(self, number: int, method: str, args: tuple[Any, ...]) -> None:
        assert self._engine is not None, "asked before it was open"
        try:
            found = getattr(self._engine, method)(*args)
        except Halted as halted:
            self.tell("halted", number, halted.finished)
        except EsrError as error:
            if self._engine.closed:  # vLLM died: what was asked goes to another, and a new process takes this one's place
                end()
            self.tell("failed", number, type(error), str(error))
        except Exception as error:
            self.tell("failed", number, EngineError, f"an engine's process met {type(error).__name__}: {engine_log.short(error)}")
        else:
            self.tell("done", number, found)


def end(code: int = 1) -> NoReturn:
    """With everything that this process started, also an engine that is just being opened."""
    if code and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(code)


def main() -> None:
    how, where = sys.argv[1:]
    if how == "join":
        host, _, port = where.rpartition(":")
        try:
            worker = Worker(Client((host, int(port)), authkey=os.environ.pop(KEY).encode()), SILENCE)
        except (OSError, AuthenticationError) as error:
            sys.exit(f"the run that called this worker does not answer at {where} ({error}); it has ended")
    else:
        if where:
            os.sched_setaffinity(0, {int(core) for core in where.split(",")})
        worker = Worker(Connection(int(how)))
    threading.Thread(target=worker.beat, daemon=True).start()
    worker.listen()


if __name__ == "__main__":
    main()
