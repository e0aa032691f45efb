"""Ops, scopes, schedules, conditions and directions: what is done, entry by entry, and the operation against the readable reference."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from esr.engine.directions import read_directions
from esr.engine.entries import Windows, check_apart, check_touching, resolved, windows
from esr.engine.hf import Part, _Site
from esr.engine.intervention import KINDS, Condition, Intervention, check_value, place
from esr.engine.plugin import mark
from esr.engine.plugin import spec as specs
from esr.engine.plugin import table as tables
from esr.engine.plugin.bank import load_bank
from esr.engine.plugin.ops import reference
from esr.engine.plugin.spec import Admitted, Sites, Spec, parse
from esr.engine.plugin.state import SteerState
from esr.engine.scope import END, Span, span
from esr.errors import EngineError, SpecError
from esr.sae import Sae
from esr.types import Op

WIDTH, LATENTS, LAYER = 16, 12, 1
BLOCK = {"saes": {"s": {"loader": "folder", "repo": "none", "layer": LAYER, "d_in": WIDTH, "d_sae": LATENTS}}, "max_ops": 8}


def admitted(spec: Spec, n_prompt: int, sites: Sites) -> dict[str, Any]:
    return mark.seal({"sae": spec.as_json(n_prompt)}, None, n_prompt, sites)


@pytest.fixture(scope="module")
def moods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("moods") / "moods.safetensors"
    rows = np.random.default_rng(3).normal(size=(5, WIDTH)).astype(np.float32)
    save_file({f"layer.{LAYER}": rows}, path)
    return path


class Bench:
    """A worker's state on the CPU and the reference's sites, over the same rows."""

    def __init__(self, moods: Path) -> None:
        self.sites = Sites.parse(BLOCK | {"directions": {"moods": {"path": str(moods)}}})
        config: Any = SimpleNamespace(
            model_config=SimpleNamespace(dtype=torch.float32), parallel_config=SimpleNamespace(rank=0),
            scheduler_config=SimpleNamespace(max_num_seqs=4, max_num_batched_tokens=64),
        )  # fmt: skip
        cpu = torch.device("cpu")
        self.bank = load_bank(self.sites, WIDTH, cpu, dummy=True)
        self.state = SteerState(self.sites, self.bank, config, cpu)
        self.two = SteerState(Sites.parse(BLOCK | {"layers": [LAYER, LAYER + 1]}), self.bank, config, cpu)
        rows = slice(0, LATENTS)
        self.sae = Sae(
            name="s", layer=LAYER, activation="relu", W_enc=self.bank.W_enc[rows], b_enc=self.bank.b_enc[rows],
            W_dec=self.bank.W_dec[rows], b_dec=torch.zeros(WIDTH), threshold=None, sha256="",
        )  # fmt: skip
        self.directions = torch.from_numpy(read_directions("moods", moods).layers[LAYER])

    def device(self, spec: Spec, ids: list[int], n_prompt: int, cuts: list[int], x: torch.Tensor) -> tuple[torch.Tensor, int]:
        """The streams after the operation, computed in chunks that end at `cuts`; and how often it was applied."""
        self.state.admit("a", admitted(spec, n_prompt, self.state.sites), n_prompt, ids[:n_prompt], slot=2)
        out, start = [], 0
        for stop in [*cuts, len(ids)]:
            count = stop - start
            self.state.refresh(np.array([2]), np.array([start]), np.array([count]), tokens=torch.tensor(ids[start:stop]))
            h = torch.zeros(count, WIDTH)
            reference(h, x[start:stop], torch.arange(start, stop), self.state, 0)
            out.append(x[start:stop] + h)
            start = stop
        counted = int(self.state.applied[2])
        self.state.leave("a")
        assert not self.state.failed
        assert self.state.stats()["unchecked"] == 0
        return torch.cat(out), counted

    def rows(self, name: str) -> Any:
        return self.directions if name == "moods" else self.sae

    def wanted(self, spec: Spec, ids: list[int], n_prompt: int, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        parts = []
        for op in spec.ops:
            when = op.when if isinstance(op, Intervention) else None
            parts.append(Part(op, self.rows(op.sae), place(op, spec.scope, n_prompt), self.rows(when.sae) if when else None))
        site = _Site(parts, n_prompt)
        streams = [site(x[:n_prompt], 0, ids[:n_prompt])]
        streams += [site(x[at : at + 1], at, ids[: at + 1]) for at in range(n_prompt, len(ids))]
        return torch.cat(streams), site.applied


bases = st.sampled_from(["", "all", "prompt", "generated", "[3,9)", "[5,)", "generated[2,)", "generated[1,6)"])
names = st.sampled_from([("s", LATENTS), ("moods", 5)])


@st.composite
def interventions(draw: st.DrawFn) -> Op:
    name, n = draw(names)
    kind = draw(st.sampled_from([kind for kind in KINDS if kind != "clamp" or name == "s"]))
    op = Op(kind, draw(st.integers(0, n - 1)), draw(st.floats(-4, 4, width=32, allow_subnormal=False)), LAYER, name)  # type: ignore[arg-type]  # drawn from the literals
    scope = draw(bases)
    if draw(st.booleans()):
        scope = f"{scope} after 7".strip() if scope in ("", "all") else scope
    points = draw(
        st.lists(
            st.tuples(st.integers(0, 9), st.floats(0, 2, width=32, allow_subnormal=False)), max_size=3, unique_by=lambda p: p[0]
        )
    )
    other, m = draw(names)
    when = draw(st.none() | st.builds(Condition, st.just(other), st.integers(0, m - 1), st.floats(-1, 1, width=16)))
    if scope or points or when:
        return Intervention(
            op.kind,
            op.latent,
            op.value,
            LAYER,
            name,
            scope,
            tuple(sorted(points)),
            draw(st.sampled_from(["linear", "step"])) if points else "linear",
            when,
        )
    return op


@pytest.fixture(scope="module")
def bench(moods: Path) -> Bench:
    return Bench(moods)


@settings(deadline=None)
@given(
    st.lists(
        names.flatmap(
            lambda name: st.builds(
                Op,
                st.sampled_from(KINDS),
                st.integers(0, name[1] - 1),
                st.floats(-1e9, 1e9),
                st.sampled_from([LAYER, LAYER + 1]),
                st.just(name[0]),
            )
        ),
        max_size=8,
    ),
    st.sampled_from(["all", "prompt", "generated", "[2,12)", "all after 7"]),
)
def test_plain_ops_fill_the_row_that_their_entries_fill(bench: Bench, ops: list[Op], scope: str) -> None:
    spec = Spec(tuple(op for op in ops if op.layer == LAYER or op.sae == "s"), scope)
    columns = Admitted.read(spec.as_json(6))
    with patch.object(specs, "MANY", 99):
        singly = Admitted.read(spec.as_json(6))
    for state in (bench.state, bench.two):  # of the first one block is on another rank
        with patch.object(Admitted, "runs", []):
            row, where = state._laid(singly, 6)
        for admitted in (columns, singly):
            found, there = state._laid(admitted, 6)
            assert there == where
            assert found.tolist() == row.tolist()


def test_an_op_that_is_not_plain_goes_the_long_way_and_its_request_s_others_with_it(bench: Bench) -> None:
    spec = Spec((Op("add", 3, 2.0, LAYER, "s"), Intervention("add", 4, 2.0, LAYER, "s", "prompt")))
    admitted = Admitted.read(spec.as_json(6))
    assert admitted.runs == []
    row, where = bench.state._laid(admitted, 6)
    assert where == spec.windows(6)
    assert row[tables.offset(0, 8)] == 2


@settings(max_examples=150, deadline=None)
@given(st.lists(interventions(), min_size=1, max_size=2), st.sampled_from(["all", "prompt", "generated", "[2,12)"]), st.data())
def test_every_op_scope_schedule_and_condition_is_the_reference_s(
    bench: Bench, ops: list[Op], scope: str, data: st.DataObject
) -> None:
    n_prompt, n = 6, 18
    spec = Spec(ops=tuple(ops), scope=scope)
    try:
        for op in ops:
            check_value(op)
        assert parse(spec.as_json(), bench.sites, layers=4, width=WIDTH) == spec
        spec.check(bench.sites, n_prompt, n)
    except SpecError:
        return
    rng = np.random.default_rng(data.draw(st.integers(0, 5)))
    ids, x = rng.integers(5, 10, n).tolist(), torch.from_numpy(rng.normal(size=(n, WIDTH)).astype(np.float32))
    cuts = sorted({*data.draw(st.sets(st.integers(1, n_prompt - 1), max_size=2)), *range(n_prompt, n)})
    got, applied = bench.device(spec, ids, n_prompt, cuts, x)
    want, due = bench.wanted(spec, ids, n_prompt, x)
    assert applied == due == spec.windows(n_prompt).touched(0, n, spec.windows(n_prompt).since(ids))
    assert torch.allclose(got, want, atol=1e-4), (got - want).abs().max()


def one(bench: Bench, op: Op, x: torch.Tensor) -> torch.Tensor:
    return bench.device(Spec(ops=(op,)), list(range(len(x))), len(x), [], x)[0]


def test_the_formulas_of_the_ops_hold(bench: Bench) -> None:
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1))
    d = bench.directions[2]
    u = d / d.norm()
    assert torch.allclose(one(bench, Op("add", 2, 1.5, LAYER, "moods"), x), x + 1.5 * d, atol=1e-5)
    out = one(bench, Op("project_out", 2, 1.0, LAYER, "moods"), x)
    assert torch.allclose(out @ u, torch.zeros(4), atol=1e-5)
    assert torch.allclose(out - (out @ u)[:, None] * u, x - (x @ u)[:, None] * u, atol=1e-5)
    assert torch.allclose(one(bench, Op("clamp_projection", 2, 3.0, LAYER, "moods"), x) @ u, torch.full((4,), 3.0), atol=1e-5)
    added = one(bench, Op("add_norm", 2, 0.25, LAYER, "moods"), x) - x
    assert torch.allclose(added.norm(dim=1), 0.25 * x.norm(dim=1), atol=1e-5)


def test_a_condition_holds_position_by_position(bench: Bench) -> None:
    x = torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(2))
    f = bench.sae.encode(x, torch.tensor([4]))[:, 0]
    bound = float(f.median())
    op = Intervention("add", 1, 2.0, LAYER, "s", when=Condition("s", 4, bound))
    moved = (one(bench, op, x) - x).abs().sum(1) > 0
    assert torch.equal(moved, f > bound)
    assert 0 < int(moved.sum()) < 12


def test_a_marker_may_come_in_any_chunk_and_counts_after_a_preemption(bench: Bench) -> None:
    spec = Spec(ops=(Intervention("add", 1, 2.0, LAYER, "s", scope="generated after 99"),))
    ids = [99, 1, 2, 3, 99, 5, 6, 7]
    x = torch.zeros(8, WIDTH)
    for cuts in ([3, 4, 5, 6, 7], [1, 3, 4, 5, 6, 7]):
        out, counted = bench.device(spec, ids, 3, cuts, x)
        assert (out.abs().sum(1) > 0).tolist() == [False] * 5 + [True] * 3
        assert counted == 3
    bench.state.admit(
        "b", admitted(spec, 3, bench.state.sites), 3, ids[:6], slot=1
    )  # it comes back with its reply so far, whose blocks are cached
    bench.state.refresh(np.array([1]), np.array([6]), np.array([1]), tokens=torch.tensor([6]))
    h = torch.zeros(1, WIDTH)
    reference(h, x[:1], torch.tensor([6]), bench.state, 0)
    assert bool(h.any())
    bench.state.leave("b")
    bench.state.stats()


def test_a_stream_that_leaves_float32_ends_the_request_and_no_other(bench: Bench) -> None:
    huge = torch.full((2, WIDTH), 1e19)
    bench.state.admit("bad", admitted(Spec(ops=(Op("add", 1, 1.0, LAYER, "s"),), id="bad"), 2, bench.state.sites), 2, slot=0)
    bench.state.admit("good", admitted(Spec(ops=(Op("add", 1, 1.0, LAYER, "s"),), id="good"), 2, bench.state.sites), 2, slot=1)
    at = np.array([0, 1]), np.array([0, 0]), np.array([2, 2])
    bench.state.refresh(*at)
    reference(torch.zeros(4, WIDTH), torch.cat([huge, torch.zeros(2, WIDTH)]), torch.tensor([0, 1, 0, 1]), bench.state, 0)
    bench.state.refresh(np.array([0, 1]), np.array([2, 2]), np.array([1, 1]))
    assert list(bench.state.failures()) == ["bad"]
    assert bench.state.failures() == {}
    bench.state.leave("bad")
    bench.state.leave("good")
    bench.state.synchronize()
    taken = {id: bench.state.take(id, 2) for id in ("bad", "good")}
    assert "left float32" in taken["bad"]["error"]  # type: ignore[index]  # it was there
    assert taken["good"]["error"] is None  # type: ignore[index]  # likewise


@pytest.mark.parametrize(
    "text",
    [
        '{"ops":[{"op":"add","sae":"s","i":1,"v":2.0,"layer":1}]}',
        '{"n":9,"ops":[]}',
        "[",
        "{}",
        '{"n":2,"ops":[{"op":"multiply","sae":"s","i":1,"v":2.0,"layer":1}]}',
    ],
)
def test_what_went_round_admission_ends_that_request_and_no_other(bench: Bench, text: str) -> None:
    bench.state.admit("round", {"sae": text}, 2, slot=0)
    bench.state.admit("round", {"sae": text}, 2, slot=0)
    assert "round" not in bench.state.slots
    assert list(bench.state.failures()) == ["round"]
    bench.state.leave("round")
    assert not bench.state.refused


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 25), st.booleans()), max_size=4),
    st.integers(0, 20),
    st.integers(0, 25),
    st.integers(0, 25),
)
def test_positions_are_counted_once_however_windows_overlap(
    block: list[tuple[int, int, bool]], start: int, stop: int, since: int
) -> None:
    naive = {at for lo, hi, marked in block for at in range(lo, hi) if start <= at < stop and (not marked or at >= since)}
    assert Windows((tuple(block),)).touched(start, stop, since) == len(naive)


def test_a_schedule_is_pieces_that_meet() -> None:
    op = Intervention("add", 1, 2.0, 1, "s", schedule=((2, 1.0), (6, 0.0), (8, 0.5)))
    pieces = resolved((op,), "all", 10)
    assert [(p.lo, p.hi) for p in pieces] == [(0, 12), (12, 16), (16, 18), (18, END)]
    assert [(p.value, p.last) for p in pieces] == [(2, 2), (2, 0), (0, 1), (1, 1)]
    stairs = resolved((Intervention("add", 1, 2.0, 1, "s", schedule=((2, 1.0), (6, 0.5)), shape="step"),), "generated", 10)
    assert [(p.lo, p.hi, p.value) for p in stairs] == [(10, 12, 2.0), (12, 16, 2.0), (16, END, 1.0)]


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ("all", Span(0, None)), ("prompt", Span(0, 10)), ("generated", Span(10, None)), ("[3,7)", Span(3, 7)), ("[3,)", Span(3, None)),
        ("generated[5,)", Span(15, None)), ("generated[0,4)", Span(10, 14)), ("after 9", Span(0, None, 9)),
        ("generated after 128009", Span(10, None, 128009)), ("[3,7) after 1", Span(3, 7, 1)),
    ],
)  # fmt: skip
def test_the_words_of_a_scope_mean_positions(scope: str, found: Span) -> None:
    assert span(scope, 10) == found


@pytest.mark.parametrize(
    "scope", ["", "everywhere", "[5,5)", "generated[3,2)", "after", "after x", "generated after -1", "all[2,3)"]
)
def test_other_words_are_refused(scope: str) -> None:
    with pytest.raises(SpecError):
        span(scope, 10)


def test_what_would_be_answered_unsteered_is_refused() -> None:
    op = Op("add", 1, 2.0, 1, "s")
    for scope in ("[4000,5000)", "[99999,)", "generated[40,)"):
        with pytest.raises(SpecError, match="touches no position"):
            check_touching((op,), scope, 41, 60)
    check_touching((op,), "[59,70)", 41, 60)
    for value in (1e-60, -1e-39, 3e38, 2e9, float("nan")):
        with pytest.raises(SpecError, match=r"in 32 bits|not a finite number"):
            check_value(Op("add", 1, value, 1, "s"))
    with pytest.raises(SpecError, match="in 32 bits"):
        check_value(Intervention("add", 1, 1e-30, 1, "s", schedule=((0, 1e-20),)))


def test_clamps_of_one_latent_may_follow_but_not_meet_one_another() -> None:
    apart = [Intervention("clamp", 1, v, 1, "s", scope=scope) for v, scope in ((1.0, "prompt"), (2.0, "generated"))]
    check_apart(apart, "all", 5)
    with pytest.raises(SpecError, match="clamped twice"):
        check_apart([*apart, Intervention("clamp", 1, 3.0, 1, "s", scope="[4,6)")], "all", 5)
    with pytest.raises(SpecError, match="projected twice"):
        check_apart([Op("project_out", 1, 1.0, 1, "s"), Op("clamp_projection", 1, 1.0, 1, "s")], "all", 5)
    with pytest.raises(SpecError, match="2 markers"):
        windows(resolved([Intervention("add", i, 1.0, 1, "s", scope=f"after {i}") for i in (1, 2)], "all", 5))


def test_thousands_of_directions_are_held_and_one_name_has_one_content(tmp_path: Path, moods: Path) -> None:
    sites = Sites.parse({**BLOCK, "max_directions": 4000})
    bank = load_bank(sites, WIDTH, torch.device("cpu"), dummy=True)
    rng = np.random.default_rng(0)
    for i in range(40):
        save_file({f"layer.{LAYER}": rng.normal(size=(100, WIDTH)).astype(np.float32)}, tmp_path / f"{i}.safetensors")
        found = read_directions(f"set{i}", tmp_path / f"{i}.safetensors")
        assert sites.know(found.shape)
        bank.load(found)
    row = bank.row("set39", LAYER, 99)
    assert torch.equal(bank.W_dec[row], torch.from_numpy(found.layers[LAYER][99]))
    assert not sites.know(found.shape)
    with pytest.raises(EngineError, match="max_directions"):
        sites.know(read_directions("more", moods).shape)
    with pytest.raises(EngineError, match="other content"):
        sites.know(read_directions("set1", moods).shape)
    with pytest.raises(EngineError, match="name of an SAE"):
        sites.know(read_directions("s", moods).shape)


def test_the_content_of_a_set_is_part_of_the_salt(bench: Bench) -> None:
    spec = Spec(ops=(Op("add", 1, 2.0, LAYER, "moods"),))
    other = Sites.parse(bench.sites.as_config())
    assert spec.salt(other, None, spec.entries(5)) == spec.salt(bench.sites, None, spec.entries(5))
    shape = other.known.pop("moods")
    other.known["moods"] = type(shape)(shape.name, shape.width, shape.layers, "other")
    assert spec.salt(other, None, spec.entries(5)) != spec.salt(bench.sites, None, spec.entries(5))
    assert json.loads(spec.as_json())["ops"][0]["sae"] == "moods"


def test_an_entry_has_the_width_that_the_table_counts_with() -> None:
    assert tables.row_width(2, 3) == tables.HEAD + 2 * (1 + 3 * tables.ENTRY)
    assert len(KINDS) <= tables.MARKED
