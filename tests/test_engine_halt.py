"""An engine lets go of its work when told, hands over what had finished, and does not hear the terminal's Ctrl-C."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from tiny_models import make_toy

from esr.engine import Request
from esr.engine.fake import FakeEngine
from esr.engine.hf import HfEngine
from esr.engine.vllm import VllmEngine
from esr.errors import Halted
from esr.params import load
from esr.study.steer import steer
from esr.types import Op, Reply, Sampling, Trial

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    toy = make_toy(tmp_path_factory.mktemp("toy"), "llama")
    engine = VllmEngine(toy.params, toy.name, enforce_eager=True, max_model_len=512, max_num_seqs=64)
    yield engine
    engine.close()


def trial(i: int, tokens: int) -> Trial:
    sampling = Sampling(temperature=1.0, top_p=1.0, repetition_penalty=1.0, max_tokens=tokens)
    return Trial(
        model="toy", weights="w", meaning="", prompt=f"How do I whittle spoon {i}?", prompt_format="clean", seed=i, sampling=sampling,
        ops=(Op("add", 3, 2.0, 1, "early"),), question=f"{i}",
    )  # fmt: skip


def test_ctrl_c_is_not_for_its_processes(engine: VllmEngine) -> None:
    alive = [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    children = [child for child in alive if child.name().startswith("VLLM")]  # zombies of another file's tests have no command line
    assert children
    for child in children:
        child.send_signal(signal.SIGINT)
    time.sleep(1)
    assert all(child.is_running() for child in children)
    assert len(engine.generate([Request(prompt="What is a spoon?", sampling=trial(0, 4).sampling)])) == 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])  # but for this one's


def test_what_had_finished_is_kept_and_the_rest_let_go(engine: VllmEngine) -> None:
    """Thirty-two replies of a few tokens, among as many of hundreds."""
    kept: list[Reply] = []
    trials = [trial(i, 4 if i % 2 else 450) for i in range(64)]
    pressed: list[float] = []

    def press() -> None:
        until = time.monotonic() + 60
        while len(engine._at_work) < len(trials) and time.monotonic() < until:
            time.sleep(0.01)
        for i in range(3):  # as short as the short ones, and asked for after them
            engine.generate([Request(prompt="What is a spoon?", sampling=trial(0, 8).sampling, seed=i)])
        pressed.append(time.monotonic())
        engine.halt()

    threading.Thread(target=press).start()
    with pytest.raises(Halted):
        steer(engine, trials, kept.extend, batch=32, in_flight=2)
    assert time.monotonic() - pressed[0] < 30
    assert {reply.trial_id for reply in kept} >= {one.id for one in trials[1::2]}
    assert len(kept) < len(trials)
    with pytest.raises(Halted):
        engine.generate([Request(prompt="What is a spoon?", sampling=trial(0, 4).sampling)])


def test_the_reference_lets_go_between_two_requests(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, "llama")
    engine = HfEngine.open(toy.params, toy.name)
    requests = [Request(prompt="What is a spoon?", sampling=trial(0, 4).sampling, seed=i) for i in range(2000)]
    threading.Timer(1.0, engine.halt).start()
    with pytest.raises(Halted) as caught:
        engine.generate(requests)
    assert 0 < len(caught.value.finished) < len(requests)
    assert sorted(caught.value.finished) == list(range(len(caught.value.finished)))


def test_the_fake_does_not_sleep_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "ESR_FAKE_DELAY", "60")
    engine = FakeEngine(load("tiny", "smoke"), "tiny")
    threading.Timer(0.2, engine.halt).start()
    began = time.monotonic()
    with pytest.raises(Halted):
        engine.generate([Request(prompt="What is a spoon?", sampling=trial(0, 4).sampling)])
    assert time.monotonic() - began < 30


def test_a_batch_that_is_not_begun_is_not_asked_for() -> None:
    asked: list[int] = []

    class Letting:
        def generate(self, requests: Sequence[Request]) -> list[object]:
            asked.append(len(requests))
            raise Halted({})

    with pytest.raises(Halted):
        steer(Letting(), [trial(i, 4) for i in range(20)], lambda replies: None, batch=2, in_flight=1)  # type: ignore[arg-type]  # all it needs
    assert asked == [2]
