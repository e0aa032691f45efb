"""Conversations: what earlier turns left in the prefix cache never changes a later one, whatever their scopes.

The reference keeps nothing between requests. A fault in what sets requests apart is planted, and must be found.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY
from tiny_models import make_toy

from esr.engine import Output, Request
from esr.engine.hf import HfEngine
from esr.engine.intervention import Condition, Intervention
from esr.engine.plugin.spec import Sites, Spec
from esr.engine.vllm import VllmEngine
from esr.types import Op, Sampling

SAMPLING = Sampling(temperature=0, top_p=1, repetition_penalty=1, max_tokens=40)
"""Replies fill blocks of 32 tokens, without which no later turn could read what an earlier one generated."""
SCOPES = ("all", "prompt", "generated", "[0,40)", "[20,)", "[70,90)")
OPS = (Op("add", 7, 9.0, 1, "early"), Op("clamp", 3, 4.0, 2, "late"))
MORE = (
    Intervention("project_out", 11, 2.0, 2, "late", "generated"),
    Intervention("add_norm", 5, 0.8, 1, "early", schedule=((0, 1.0), (10, 0.0))),
    Intervention("clamp_projection", 5, 6.0, 1, "early", "after 35"),
    Intervention("add", 20, -7.0, 2, "late", "generated[3,)", when=Condition("late", 4, 0.1)),
)
FIRST, SECOND, THIRD = "How are walls built, and of what? ", " And then? ", " Why so? "


class Talks:
    """Conversations held with an engine, each turn beside the reference's."""

    def __init__(self, engine: VllmEngine, reference: HfEngine) -> None:
        self.engine, self.reference = engine, reference
        self.known: dict[Request, Output] = {}

    def wanted(self, request: Request) -> Output:
        if request not in self.known:
            self.known[request] = self.reference.generate([request])[0]
        return self.known[request]

    def turn(self, before: tuple[int, ...], words: str, ops: tuple[Op, ...], scope: str) -> Request:
        """The next turn: all that was said, and `words`."""
        said = tuple(self.engine.chat.tokenizer.encode(words, add_special_tokens=False))
        return Request(token_ids=(*before, *said), sampling=SAMPLING, ops=ops, scope=scope)

    def conversation(self, ops: tuple[Op, ...], scopes: tuple[str, str, str]) -> list[Request]:
        """Three turns, of which the later ones hold the reference's replies to the earlier ones."""
        before, turns = self.engine.render(FIRST * 2), []
        for words, scope in zip(("", SECOND, THIRD), scopes, strict=True):
            turns.append(self.turn(before, words, ops, scope))
            before = (*turns[-1].token_ids, *self.wanted(turns[-1]).token_ids)
        return turns

    def wrong(self, *rounds: list[Request]) -> list[Request]:
        """Of requests asked round by round, those of a round all at once: whose answer is not the reference's."""
        found = [output for requests in rounds for output in self.engine.generate(requests)]
        requests = [request for one in rounds for request in one]
        wanted = [self.wanted(request) for request in requests]
        return [
            request
            for request, a, b in zip(requests, found, wanted, strict=True)
            if (a.token_ids, a.applied) != (b.token_ids, b.applied)
        ]


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talks]:
    toy = make_toy(tmp_path_factory.mktemp("llama"))
    engine = VllmEngine(
        toy.params, toy.name, enforce_eager=True, max_model_len=320, max_num_seqs=16, max_num_batched_tokens=96, block_size=32,
        enable_prefix_caching=True, disable_log_stats=False, num_gpu_blocks_override=200,
    )  # fmt: skip
    try:
        yield Talks(engine, HfEngine.open(toy.params, toy.name))
    finally:
        engine.close()


@pytest.fixture(autouse=True)
def nothing_cached(talks: Talks) -> None:
    talks.engine._call(talks.engine._engine.reset_prefix_cache())


def hits() -> float:
    return sum(s.value for m in REGISTRY.collect() for s in m.samples if s.name == "vllm:prefix_cache_hits_total")


def clear(talks: Talks) -> None:
    assert talks.engine._call(talks.engine._engine.reset_prefix_cache())


def right_in_every_order(talks: Talks) -> None:
    """Conversations of differing scopes run side by side; their turns come in each order."""
    talked = [talks.conversation(OPS, (scope, scope, scope)) for scope in SCOPES]
    before = hits()
    for order in itertools.permutations(range(3)):
        clear(talks)
        assert not talks.wrong(*([turns[i] for turns in talked] for i in order)), order
    assert hits() > before, "turns are meant to read what others left"


def test_the_three_turns_of_a_conversation_are_right_under_every_scope_in_every_order(talks: Talks) -> None:
    right_in_every_order(talks)


def test_turns_of_differing_scopes_and_plain_ones_share_no_steered_block(talks: Talks) -> None:
    turns = [
        request
        for scopes in (("prompt", "generated", "all"), ("generated", "prompt", "[20,)"), ("all", "generated", "[0,40)"))
        for request in talks.conversation(OPS, scopes)
    ]
    turns += [replace(request, ops=(), scope="all") for request in turns[:3]]
    for seed in range(2):
        clear(talks)
        order = random.Random(seed).sample(turns, len(turns))
        assert not talks.wrong(*([request] for request in order)), [request.scope for request in order]
    assert not talks.wrong(turns * 2)


def test_a_later_turn_under_all_reads_the_blocks_of_the_earlier_ones(talks: Talks) -> None:
    first, second, _ = talks.conversation(OPS, ("all", "all", "all"))
    assert not talks.wrong([first])
    before = hits()
    assert not talks.wrong([second])
    assert hits() - before >= len(first.token_ids) // 32 * 32


def random_turns(talks: Talks, seed: int, n: int) -> list[Request]:
    """`n` turns of conversations that branch from one another at random, each with ops and scopes of its own."""
    rng = random.Random(seed)
    pool: list[tuple[int, ...]] = [talks.engine.render(FIRST), talks.engine.render(FIRST + FIRST)]
    kinds = ((), OPS, OPS[:1], *((op,) for op in MORE))
    turns: list[Request] = []
    while len(turns) < n:
        before = rng.choice(pool)
        if len(before) > 220:
            continue
        ends = (*SCOPES, f"[{rng.randrange(len(before))},)", f"[{rng.randrange(20)},{rng.randrange(21, 120)})")
        request = talks.turn(before, rng.choice(("", SECOND, THIRD)), rng.choice(kinds), rng.choice(ends))
        if request.scope == "[70,90)" and len(request.token_ids) < 71:
            continue
        turns.append(request)
        reply = talks.wanted(request).token_ids
        pool.append((*request.token_ids, *reply[: rng.choice((16, 40))]))
    return turns


@pytest.mark.parametrize("seed", range(2))
def test_random_conversations_are_what_they_are_without_a_prefix_cache(talks: Talks, seed: int) -> None:
    turns = random_turns(talks, seed, 40)
    assert not talks.wrong(turns[:10], turns[10:20], turns[20:30], turns[30:])
    assert not talks.wrong(random.Random(seed).sample(turns, len(turns)))


def by_text(self: Spec, sites: Sites, user: str | None, entries: object) -> str | None:
    """Sets apart by the scope's words, which mean other positions in the next turn."""
    return user if not self.ops else hashlib.sha256(repr((user, sorted(self.ops), self.scope)).encode()).hexdigest()


def by_ops(self: Spec, sites: Sites, user: str | None, entries: object) -> str | None:
    """Forgets the scope."""
    return user if not self.ops else hashlib.sha256(repr((user, sorted(self.ops))).encode()).hexdigest()


def by_nothing(self: Spec, sites: Sites, user: str | None, entries: object) -> str | None:
    return user


@pytest.mark.parametrize("fault", [by_text, by_ops, by_nothing])
def test_a_planted_fault_of_the_salt_is_found(talks: Talks, fault: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spec, "salt", fault)
    turns = talks.conversation(OPS, ("generated", "generated", "generated"))
    assert talks.wrong(*([turn] for turn in turns))
    clear(talks)
    turns = random_turns(talks, 0, 40)
    assert talks.wrong(turns[:10], turns[10:20], turns[20:30], turns[30:])
