"""What vLLM finds in this process's environment, and what it may leave there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

QUIET = {"VLLM_NO_USAGE_STATS": "1", "TQDM_DISABLE": "1"}
CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
"""GiB of key-value cache: vLLM would take half the machine."""
PRELOAD = "LD_PRELOAD"


def settle() -> None:
    """Where nobody has said otherwise."""
    for name, value in (QUIET | CPU).items():
        os.environ.setdefault(name, value)


@contextmanager
def preloading() -> Iterator[None]:
    """On a CPU vLLM has torch's OpenMP and an allocator loaded into processes that it starts; other children of this process are not
    to begin with them."""
    before = os.environ.get(PRELOAD)
    try:
        yield
    finally:
        os.environ.pop(PRELOAD, None)
        if before is not None:
            os.environ[PRELOAD] = before
