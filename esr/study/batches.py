"""A long list in batches, several at work at once, each handed on the moment it is done."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def cut(items: Sequence[A], size: int) -> list[Sequence[A]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def work(todo: Callable[[Sequence[A]], B], items: Sequence[A], *, size: int, in_flight: int) -> Iterator[B]:
    """`todo` of each batch, in the order in which they end; at most `in_flight` at once.

    When one fails, those already at work are still handed on, none is started, and then the failure is raised: what was
    computed is kept. Each works in the context of who asks, so that what it logs is told as theirs.
    """
    waiting = iter(cut(items, size))
    failed: BaseException | None = None
    with ThreadPoolExecutor(in_flight) as pool:
        running: set[Future[B]] = {pool.submit(copy_context().run, todo, batch) for batch in islice(waiting, in_flight)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                if (error := future.exception()) is not None:
                    failed = failed or error
                    continue
                yield future.result()
                if failed is None:
                    running |= {pool.submit(copy_context().run, todo, batch) for batch in islice(waiting, 1)}
    if failed is not None:
        raise failed
