"""What an engine on a GPU is asked for besides what params say."""

import pytest

from esr.engine.options import graphs
from esr.params import HOME

GIB = 1 << 30


@pytest.mark.parametrize(
    ("asked", "gib", "most"),
    [
        ({}, 80, 1024),
        ({}, 141, 1024),
        ({}, 48, None),
        ({"max_num_seqs": 256}, 80, None),
        ({"max_num_seqs": 512}, 80, None),
        ({"max_num_seqs": 768}, 48, 768),
        ({"enforce_eager": True}, 80, None),
    ],
)
def test_a_step_of_all_sequences_at_once_has_a_graph(asked: dict[str, object], gib: int, most: int | None) -> None:
    found = graphs(asked, gib * GIB)
    assert found == ({} if most is None else {"compilation_config": {"max_cudagraph_capture_size": most}})


def test_vllm_takes_it_as_it_is_written() -> None:
    from vllm import AsyncEngineArgs

    args = AsyncEngineArgs(model=str(HOME / "esr/organism/data/tiny"), **graphs({}, 80 * GIB))
    assert args.compilation_config.max_cudagraph_capture_size == 1024
