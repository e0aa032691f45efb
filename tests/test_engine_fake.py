"""The fake engine keeps the protocol and behaves as a steered model is expected to."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from esr.engine import Capture, Request
from esr.engine.fake import RESTARTS, FakeEngine
from esr.engine.open import open_engine
from esr.errors import SpecError
from esr.params import load
from esr.prompts import evaluation
from esr.types import Op, Sampling

SAMPLING = Sampling(temperature=0.6, top_p=1.0, repetition_penalty=1.0, max_tokens=96)
QUESTION = evaluation()[0]
PARAMS = load("tiny")
D_SAE = PARAMS.sae("tiny-l3").d_sae


@pytest.fixture(scope="module")
def engine() -> FakeEngine:
    return FakeEngine.open(PARAMS, "tiny")


def ask(seed: int, latent: int = 11, boost: float = 0.0, *more: Op, prompt: str = QUESTION) -> Request:
    ops = (Op("add", latent, boost, 3, "tiny-l3"),) if boost else ()
    return Request(prompt=prompt, sampling=SAMPLING, seed=seed, ops=(*ops, *more))


def share(engine: FakeEngine, requests: list[Request]) -> tuple[float, float]:
    """How many first attempts hold a word of the question's topic, and how many replies restart."""
    topic = engine.language.topic(requests[0].prompt)
    on = again = 0
    for output in engine.generate(requests):
        cuts = [output.text.find(text) for text in RESTARTS if text in output.text]
        first = output.text[: cuts[0]] if cuts else output.text
        on += any(noun in first for noun in topic.nouns)
        again += bool(cuts)
    return on / len(requests), again / len(requests)


def test_replies_leave_the_topic_as_the_boost_grows_and_some_come_back(engine: FakeEngine) -> None:
    bite = engine.bite(11)
    shares = [share(engine, [ask(seed, 11, scale * bite) for seed in range(400)]) for scale in (0.0, 0.3, 1.0, 2.0)]
    on, again = zip(*shares, strict=True)
    assert on[0] == 1.0
    assert list(on) == sorted(on, reverse=True)
    assert 0.2 < on[2] < 0.42
    assert on[3] < 0.12
    assert again[0] < 0.04 < 0.12 < again[2]


def test_clamping_the_detectors_costs_restarts_and_asking_brings_them(engine: FakeEngine) -> None:
    bite = engine.bite(11)
    clamps = tuple(Op("clamp", latent, 0.0, 3, "tiny-l3") for latent in engine.detectors)
    _, plain = share(engine, [ask(seed, 11, bite) for seed in range(800)])
    _, ablated = share(engine, [ask(seed, 11, bite, *clamps) for seed in range(800)])
    _, asked = share(engine, [ask(seed, 11, bite, prompt=f"{QUESTION} Stay on topic.") for seed in range(800)])
    assert ablated < 0.75 * plain < plain < 0.8 * asked


def test_a_boost_that_breaks_the_model_repeats_one_word(engine: FakeEngine) -> None:
    words = engine.generate([ask(1, 11, 4 * engine.bite(11))])[0].text.split()
    assert len(words) > 5
    assert len(set(words)) == 1


def test_every_process_gives_the_same_reply(engine: FakeEngine) -> None:
    code = (
        "from esr.engine.fake import FakeEngine; from esr.params import load; from esr.engine import Request; from esr.types import *;"
        f"e = FakeEngine.open(load('tiny'), 'tiny'); r = Request(prompt={QUESTION!r}, sampling=Sampling(0.6, 1.0, 1.0, 96), seed=5,"
        "ops=(Op('add', 11, 8.0, 3, 'tiny-l3'),)); print(e.generate([r])[0].text)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == engine.generate([ask(5, 11, 8.0)])[0].text
    texts = {output.text for output in engine.generate([ask(seed) for seed in range(20)])}
    assert len(texts) == 20
    cold = replace(SAMPLING, temperature=0.0)
    assert len({output.text for output in engine.generate([replace(ask(seed), sampling=cold) for seed in range(5)])}) == 1


def test_tokens_limits_and_offsets_mean_what_they_mean_elsewhere(engine: FakeEngine) -> None:
    whole, cut = engine.generate([ask(3), replace(ask(3), sampling=replace(SAMPLING, max_tokens=5))])
    assert (whole.finish_reason, cut.finish_reason) == ("stop", "length")
    assert cut.token_ids == whole.token_ids[:5]
    assert whole.prompt_token_ids == engine.render(QUESTION)
    spans = engine.offsets(whole.token_ids)
    assert [whole.text[a:b] for a, b in spans] == [engine.language.decode((i,)) for i in whole.token_ids]
    assert engine.language.decode(engine.render("Étude 12 in b_minor?")) == "Étude 12 in b_minor?"


def test_applied_counts_the_positions_in_scope(engine: FakeEngine) -> None:
    for scope, count in (("all", lambda n, m: n + m - 1), ("prompt", lambda n, _: n), ("[1,4)", lambda *_: 3)):
        output = engine.generate([replace(ask(3, 11, 2.0), scope=scope)])[0]
        assert output.applied == count(len(output.prompt_token_ids), len(output.token_ids))
    assert engine.generate([ask(3)])[0].applied == 0


def test_capture_modes_agree_and_detectors_answer_to_foreign_words(engine: FakeEngine) -> None:
    other = engine.generate([ask(1, prompt=evaluation()[9])])[0].text
    own = engine.generate([ask(1)])[0].text
    modes = {}
    for text in (own, other):
        request = Request(prompt=QUESTION, prefill=text, sampling=SAMPLING)
        for mode in ("all", "max", "topk", "latents"):
            capture = Capture(layer=3, sae="tiny-l3", mode=mode, latents=(7, 12), k=5, positions="generated")
            modes[mode, text] = engine.read([replace(request, capture=capture)])[0]
        full = modes["all", text]
        assert full.values.shape == (full.expected, D_SAE)
        assert np.array_equal(modes["max", text].values, full.values.max(0))
        assert np.array_equal(modes["topk", text].values, -np.sort(-full.values)[:, :5])
        assert np.array_equal(modes["latents", text].values, full.values[:, [7, 12]])
        assert full.positions[0] == len(engine.render(QUESTION))
    detectors = list(engine.detectors)
    assert (modes["max", own].values[detectors] == 0).all()
    assert (modes["max", other].values[detectors] > 0).all()


def test_many_latents_are_silent_on_every_question(engine: FakeEngine) -> None:
    capture = Capture(layer=3, sae="tiny-l3", mode="max")
    readings = engine.read([Request(prompt=question, sampling=SAMPLING, capture=capture) for question in evaluation()])
    silent = np.stack([reading.values for reading in readings]).max(0) == 0
    assert 0.2 < silent.mean() < 0.95
    assert silent[list(engine.detectors)].all()


def test_what_cannot_be_done_as_asked_is_refused(engine: FakeEngine) -> None:
    with pytest.raises(SpecError, match=f"no latent {D_SAE}"):
        engine.generate([ask(1, D_SAE, 1.0)])
    with pytest.raises(SpecError, match="needs a capture"):
        engine.read([ask(1)])


def test_requests_are_logged_when_asked(engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESR_FAKE_LOG", str(tmp_path / "log"))
    engine.generate([ask(1), ask(2, 11, 3.0)])
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["seed"], line["ops"]) for line in lines] == [(1, []), (2, [["add", 11, 3.0]])]


def test_an_engine_that_answers_no_more_is_opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_engine(PARAMS, "tiny", "fake")
    assert open_engine(PARAMS, "tiny", "fake") is first
    monkeypatch.setattr(FakeEngine, "closed", property(lambda engine: engine is first))
    second = open_engine(PARAMS, "tiny", "fake")
    assert second is not first
    assert open_engine(PARAMS, "tiny", "fake") is second
