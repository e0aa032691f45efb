"""Several processes, each with an engine of its own, that serve as one engine: one a GPU, or one a share of the cores.

A call is cut into pieces, and each piece goes to the worker with the least at work. A worker that dies, or says nothing for a while,
is replaced, and its pieces go to others; a piece that takes far longer than usual is also given to a worker that has nothing to do, and
whichever answers first counts. Engines stay open between calls, so stages and experiments of one model find them warm.

All have to answer alike. The first engine that is open says what the fleet is, and the first hash of a set of directions what the set
is; a worker that says otherwise is given up like one whose engine cannot be opened: a line says in what it differs and the others go on.
"""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from esr.engine import Backend, Output, Reading, Request, alike
from esr.engine import log as engine_log
from esr.engine.door import Door
from esr.engine.hand import Hand, started
from esr.engine.piece import Piece
from esr.engine.share import Summons, shares
from esr.errors import EngineError, Halted

if TYPE_CHECKING:
    from esr.params import Params

log = logging.getLogger(__name__)
T = TypeVar("T")

PARTS = 4
"""Pieces of a batch: so many workers share it where they have nothing else to do."""
AHEAD = 2
"""Times as much as one engine has in flight in a run of its own: the next fills it while the last of the one before are written."""
DEATHS = 3
"""Workers that die one after the other and answer nothing, or over one piece, until it is given up."""
PATIENCE, TIMES = 20.0, 4.0
"""Seconds, and times the mean, that a piece may take until an idle worker gets it too."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker as it is shown."""

    number: int
    pid: int
    state: str
    done: int
    at_work: int
    rate: float
    """Requests answered a second since its engine was open."""


class Fleet:
    """Engine over `n` workers, of this machine or, with `summons`, wherever some of a pool are free; what else is given opens each one's
    engine, as it would one of this process."""

    def __init__(
        self,
        n: int,
        params: "Params",
        model: str,
        backend: Backend,
        saes: bool,
        options: dict[str, Any],
        summons: Summons | None = None,
    ) -> None:
        self._given = (params, model, backend, saes, options)
        self._piece = max(params.work.batch // PARTS, 1)
        self._room = AHEAD * params.work.batch * params.work.in_flight
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._numbers = itertools.count()
        self._waiting: deque[Piece] = deque()
        self._directions: dict[str, tuple[str, Path, int | None]] = {}
        self._hashes: dict[str, str] = {}
        self._deaths: dict[int, int] = {}
        self._mean = 0.0
        self._reason = ""
        self._fingerprint: dict[str, str] = {}
        self._weights = ""
        self._closed = self._halted = False
        self._hands: dict[int, Hand] = {}
        with self._lock:
            if summons is None:
                for number, share in enumerate(shares(n, params.model(model).gpus, backend), 1):
                    self._start(started(number, share, engine_log.new(f"{model}-worker-{number}"), self._heard))
        self._door = None if summons is None else Door(summons, n, self._joined)
        try:
            with self._changed:
                while not self._fingerprint and self._alive:
                    self._changed.wait(1.0)
        except BaseException:
            self.close()
            raise
        if not self._fingerprint:
            self.close()
            raise EngineError(self._reason)
        threading.Thread(target=self._watch, name="fleet", daemon=True).start()

    # the protocol

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        return self._spread("generate", requests)

    def read(self, requests: Sequence[Request]) -> list[Reading]:
        return self._spread("read", requests)

    def load_directions(self, name: str, path: Path, layer: int | None = None) -> str:
        """Of every worker, also of those that come later; while none is open this waits. What no worker can load is an error; a worker
        that cannot where others can, or finds other directions, is given up, and so is one that comes later and does not find these."""
        given = (name, path, layer)
        with self._changed:
            while not (self._open or self._halted or self.closed):
                self._changed.wait(1.0)
            self._check_open()
            asked = {hand: self._hand_out(hand, Piece("load_directions", given)) for hand in self._open}
        if not asked:
            raise Halted({})
        wait([piece.future for piece in asked.values()])
        failed = {hand: error for hand, piece in asked.items() if (error := piece.future.exception())}
        found = {hand: str(piece.future.result()) for hand, piece in asked.items() if hand not in failed}
        for error in failed.values():
            if not found or isinstance(error, Halted):
                raise error
        with self._changed:
            has = self._hashes.get(name, "")
            sha256 = has if has in found.values() else next(iter(found.values()))
            self._directions[name], self._hashes[name] = given, sha256
            for hand in asked:
                self._compare(hand, name, found.get(hand, ""), str(failed.get(hand, "")))
            for hand in self._open:
                if hand not in asked:
                    self._hand_out(hand, Piece("load_directions", given, own=True))
        return sha256

    def render(self, prompt: str, prompt_format: str = "clean", prefill: str | tuple[int, ...] = "") -> tuple[int, ...]:
        return tuple(self._one(Piece("render", (prompt, prompt_format, prefill))))

    def offsets(self, token_ids: Sequence[int]) -> list[tuple[int, int]]:
        return list(self._one(Piece("offsets", (tuple(token_ids),))))

    @property
    def fingerprint(self) -> dict[str, str]:
        return self._fingerprint

    @property
    def closed(self) -> bool:
        return self._closed or not self._alive

    def halt(self) -> None:
        with self._lock:
            self._halted = True
            while self._waiting:
                self._waiting.popleft().settle(lambda future: future.set_exception(Halted({})))
            for hand in self._open:
                hand.tell("halt")

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            hands = list(self._hands.values())
            for hand in hands:
                hand.tell("close")
        for hand in hands:
            hand.close()
        if self._door is not None:
            self._door.close()
        self._give_up()

    def seen(self) -> list[Seen]:
        with self._lock:
            now = time.monotonic()
            return [
                Seen(n, h.process.pid if h.process else 0, h.state, h.done, h.load, (h.done - h.before) / max(now - h.since, 1e-9))
                for n, h in sorted(self._hands.items())
            ]

    # calls and their pieces

    def _spread(self, method: str, requests: Sequence[Any]) -> list[Any]:
        with self._lock:
            self._check_open()
            starts = range(0, len(requests), self._piece)
            pieces = [Piece(method, (list(requests[i : i + self._piece]),)) for i in starts]
            self._waiting.extend(pieces)
            if self._halted:
                self.halt()
            self._feed()
        wait([piece.future for piece in pieces], return_when=FIRST_EXCEPTION)
        with self._lock:  # all or nothing: after the first failure what has not begun does not begin
            failed = [e for p in pieces if p.future.done() and (e := p.future.exception()) and not isinstance(e, Halted)]
            for piece in pieces if failed else ():
                with suppress(ValueError):
                    self._waiting.remove(piece)
        if failed:
            raise failed[0]
        found: dict[int, Any] = {}
        for start, piece in zip(starts, pieces, strict=True):
            try:
                found |= {start + i: one for i, one in enumerate(piece.future.result())}
            except Halted as halted:
                found |= {start + i: one for i, one in halted.finished.items()}
        if len(found) < len(requests):
            raise Halted(found)
        return [found[i] for i in range(len(requests))]

    def _one(self, piece: Piece) -> Any:
        with self._lock:
            self._check_open()
            self._waiting.appendleft(piece)
            self._feed()
        return piece.future.result()

    def _feed(self) -> None:
        """What waits goes to whoever has the least at work, as long as somebody has room."""
        while self._waiting:
            free = [hand for hand in self._open if hand.load < self._room or not self._waiting[0].size]
            if not free:
                return
            piece = self._waiting.popleft()
            if not piece.future.done():
                self._hand_out(min(free, key=lambda hand: hand.load), piece)

    def _hand_out(self, hand: Hand, piece: Piece) -> Piece:
        number = next(self._numbers)
        hand.pieces[number] = piece
        piece.holders.add(hand.number)
        piece.since = time.monotonic()
        hand.tell("call", number, piece.method, piece.args)
        return piece

    def _watch(self) -> None:
        """A slow worker does not hold the others up."""
        while not self.closed:
            time.sleep(1.0)
            with self._lock:
                for hand in self._hands.values() if self._door else ():
                    hand.tell("beat")
                idle = [hand for hand in self._open if not hand.pieces]
                if not idle or self._waiting or self._halted:
                    continue
                late = time.monotonic() - max(PATIENCE, TIMES * self._mean)
                held = {piece for hand in self._open for piece in hand.pieces.values()}
                slow = [piece for piece in held if len(piece.holders) == 1 and piece.size and piece.since < late]
                for piece in sorted(slow, key=lambda piece: piece.since):
                    hand = min(idle, key=lambda hand: hand.load)
                    if hand.load < self._room:
                        self._hand_out(hand, piece)

    # workers

    @property
    def _open(self) -> list[Hand]:
        return [hand for hand in self._hands.values() if hand.state == "open" and not hand.refused]

    @property
    def _alive(self) -> bool:
        return any(hand.state != "gone" for hand in self._hands.values()) or bool(self._door and self._door.awaited)

    def _check_open(self) -> None:
        if self.closed:
            raise EngineError(self._reason or "the engine is closed; open it again")

    def _start(self, hand: Hand) -> None:
        self._hands[hand.number] = hand
        hand.begin()
        hand.tell("open", *self._given)

    def _joined(self, line: Connection) -> None:
        """From elsewhere, whenever it has come."""
        with self._changed:
            if not self._closed:
                gone = (number for number, hand in self._hands.items() if hand.state == "gone")
                self._start(Hand(next(gone, len(self._hands) + 1), line, self._heard))

    def _heard(self, hand: Hand, message: tuple[Any, ...] | None) -> None:
        with self._changed:
            if message is None:
                self._died(hand)
            elif hand.refused:
                return  # what it still says does not count
            elif message[0] == "opened":
                self._opened(hand, *message[1:])
            elif message[0] == "refused":
                self._refuse(hand, message[1])
            else:
                self._answered(hand, *message)
            self._feed()
            self._changed.notify_all()

    def _opened(self, hand: Hand, fingerprint: dict[str, str], weights: str = "") -> None:
        """The first says what the fleet is. One that differs gets no work and is given up; the others go on."""
        if not self._fingerprint:
            self._fingerprint, self._weights = fingerprint, weights
        fleet = self._fingerprint | {"weights": self._weights}
        if told := alike.other_engine(hand.number, fingerprint | {"weights": weights}, fleet):
            self._refuse(hand, told)
            return
        hand.state, hand.since = "open", time.monotonic()
        for given in self._directions.values():
            self._hand_out(hand, Piece("load_directions", given, own=True))
        if self._halted:
            hand.tell("halt")

    def _compare(self, hand: Hand, name: str, sha256: str, error: str) -> None:
        """It has read a set of directions that the fleet has."""
        if told := alike.other_directions(hand.number, name, sha256, error, self._hashes[name]):
            self._refuse(hand, told)

    def _refuse(self, hand: Hand, why: str) -> None:
        """It is ended, and no other takes its place, which would be refused again."""
        hand.refused = why
        hand.kill()

    def _answered(self, hand: Hand, what: str, number: int, *rest: Any) -> None:
        piece = hand.pieces.pop(number)
        piece.holders.discard(hand.number)
        if piece.own and what != "halted":
            self._compare(hand, piece.args[0], *((str(rest[0]), "") if what == "done" else ("", str(rest[1]))))
        if hand.refused:
            return
        if what == "done":
            self._deaths[hand.number] = 0
            if piece.settle(lambda future: future.set_result(rest[0])):
                hand.done += piece.size
            if piece.size:
                took = time.monotonic() - piece.since
                self._mean = took if not self._mean else 0.9 * self._mean + 0.1 * took
        elif what == "halted":
            piece.settle(lambda future: future.set_exception(Halted(rest[0])))
        else:
            piece.settle(lambda future: future.set_exception(rest[0](rest[1])))

    def _died(self, hand: Hand) -> None:
        hand.state = "gone"
        lost, hand.pieces = list(hand.pieces.values()), {}
        if self._closed:
            return
        ended = f"worker {hand.number} ended ({hand.ended})"
        for piece in reversed(lost):
            piece.holders.discard(hand.number)
            piece.deaths += not hand.refused
            if piece.own:
                continue
            if self._halted:
                piece.settle(lambda future: future.set_exception(Halted({})))
            elif piece.deaths >= DEATHS:
                told = self._failure(f"{ended}, as did {DEATHS - 1} others before it with the same requests at work", hand)
                piece.settle(lambda future, told=told: future.set_exception(told))  # type: ignore[misc]  # binds this one
            elif not piece.holders and not piece.future.done():
                self._waiting.appendleft(piece)
        deaths = self._deaths[hand.number] = self._deaths.get(hand.number, 0) + 1
        if deaths < DEATHS and not self._halted and not hand.refused:
            log.warning("%s; its work goes to the others and a new one takes its place", ended)
            if self._door is not None:
                self._door.call_aside()
            elif hand.share is not None and hand.log is not None:
                again = started(hand.number, hand.share, hand.log, self._heard)
                again.done = again.before = hand.done
                self._start(again)
            return
        self._reason = hand.refused or str(self._failure(ended, hand))
        if self._alive:
            log.warning("worker %d is given up: %s; the others go on", hand.number, self._reason)
        else:
            self._give_up()

    def _failure(self, told: str, hand: Hand) -> EngineError:
        return EngineError(told) if hand.log is None else engine_log.failure(told, hand.log)

    def _give_up(self) -> None:
        """Nobody is left who could answer."""
        with self._lock:
            pieces = [*self._waiting, *(piece for hand in self._hands.values() for piece in hand.pieces.values())]
            self._waiting.clear()
            for piece in pieces:
                piece.settle(lambda future: future.set_exception(EngineError(self._reason or "the engine was closed meanwhile")))
