"""What a request may say and what an engine may be started with; pure Python, nothing is loaded."""

import json
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esr.engine import Capture
from esr.engine.intervention import KINDS
from esr.engine.plugin.spec import FORMAT, MANY, Admitted, Sites, Spec, parse
from esr.errors import EngineError, SpecError
from esr.types import Op

BLOCK = {
    "saes": {
        "early": {"loader": "folder", "repo": "/saes/early", "layer": 1, "d_in": 64, "d_sae": 96, "sha256": "ab"},
        "late": {"loader": "folder", "repo": "/saes/late", "layer": 2, "d_in": 64, "d_sae": 96},
    },
    "max_ops": 3,
}
SITES = Sites.parse(BLOCK)
ADD = {"op": "add", "sae": "early", "i": 7, "v": 2.0}


def asked(block: object, sites: Sites = SITES) -> Spec:
    return parse(json.dumps(block), sites, layers=4, width=64)


ops = st.lists(
    st.builds(
        Op,
        st.sampled_from(["add", "clamp"]),
        st.integers(0, 95),
        st.floats(-50, 50, width=32, allow_subnormal=False),
        st.just(1),
        st.just("early"),
    ),
    max_size=3,
    unique_by=lambda op: (op.kind, op.latent),
)
captures = st.none() | st.builds(
    Capture,
    layer=st.just(2), sae=st.just("late"), mode=st.just("topk"), k=st.integers(1, 96),
    positions=st.sampled_from(["all", "prompt", "[2,9)"]), stage=st.sampled_from(["before", "after"]),
)  # fmt: skip
specs = st.builds(
    Spec, ops=ops.map(tuple), scope=st.sampled_from(["all", "prompt", "generated", "[0,5)"]), capture=captures, id=st.just("a")
)


@settings(deadline=None)
@given(specs)
def test_a_spec_comes_through_as_it_was_sent(spec: Spec) -> None:
    assert parse(spec.as_json(), SITES, layers=4, width=64) == spec
    admitted = Admitted.read(spec.as_json(7))
    assert (admitted.spec, admitted.n_prompt) == (spec, 7)


@settings(deadline=None)
@given(specs, specs)
def test_requests_share_cached_prompts_when_their_interventions_are_equal_and_only_then(a: Spec, b: Spec) -> None:
    for n_prompt, later in ((3, 3), (3, 9)):
        equal = sorted(a.ops) == sorted(b.ops) and (a.windows(n_prompt) == b.windows(later) or not a.ops)
        assert (a.salt(SITES, None, a.entries(n_prompt)) == b.salt(SITES, None, b.entries(later))) == equal


many = st.lists(
    st.builds(
        Op,
        st.sampled_from(KINDS),
        st.integers(0, 4),
        st.floats(-1e9, 1e9),
        st.integers(0, 3),
        st.sampled_from(["early", "late", 'l"']),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(many, st.sampled_from(["all", "generated after 7"]))
def test_many_plain_ops_travel_by_columns_and_are_read_in_their_order(ops: list[Op], scope: str) -> None:
    spec = Spec(tuple(ops), scope, None, "a")
    admitted = Admitted.read(spec.as_json(7))
    assert (admitted.spec, admitted.n_prompt) == (spec, 7)
    alike = sum(1 for _ in groupby(ops, lambda op: (op.kind, op.layer, op.sae)))
    assert len(admitted.runs) == len(admitted.listed) == (alike if len(ops) >= MANY else len(ops))


def test_a_plain_request_keeps_its_own_salt_and_a_steered_one_another_user_s_apart() -> None:
    assert Spec().salt(SITES, None, ()) is None
    assert Spec().salt(SITES, "mine", ()) == "mine"
    spec = asked({"ops": [ADD]})
    assert len({spec.salt(SITES, user, spec.entries(3)) for user in (None, "mine", "yours")}) == 3
    other = Sites.parse({**BLOCK, "saes": {**BLOCK["saes"], "early": {**BLOCK["saes"]["early"], "sha256": "cd"}}})  # type: ignore[dict-item]  # JSON
    assert spec.salt(other, None, spec.entries(3)) != spec.salt(SITES, None, spec.entries(3))


def test_an_op_is_at_its_sae_s_own_block_unless_it_says_so() -> None:
    assert asked({"ops": [ADD]}).ops == (Op("add", 7, 2.0, 1, "early"),)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("[", "not JSON"),
        ([], "not a JSON object"),
        ({"op": []}, "no field 'op'"),
        ({"ops": {}}, "not a list"),
        ({"ops": [{**ADD, "strength": 2}]}, "no field 'strength'"),
        ({"ops": [{"op": "add", "sae": "early", "i": 7}]}, "lacks v"),
        ({"ops": [{**ADD, "op": "multiply"}]}, "no intervention 'multiply'"),
        ({"ops": [{**ADD, "sae": "erly"}]}, "nearest: early"),
        ({"ops": [{**ADD, "i": 96}]}, "no latent 96"),
        ({"ops": [{**ADD, "i": -1}]}, "no latent -1"),
        ({"ops": [{**ADD, "i": 1.0}]}, "not whole numbers"),
        ({"ops": [{**ADD, "i": True}]}, "not whole numbers"),
        ({"ops": [{**ADD, "v": "2"}]}, "not a number"),
        ({"ops": [{**ADD, "v": True}]}, "not a number"),
        ({"ops": [{**ADD, "v": float("nan")}]}, "not a finite number"),
        ({"ops": [{**ADD, "v": float("inf")}]}, "not a finite number"),
        ({"ops": [{**ADD, "layer": 2}]}, "trained after block 1"),
        ({"ops": [{**ADD, "layer": 9}]}, "no block 9"),
        ({"ops": [{**ADD, "i": i} for i in range(4)]}, "4 interventions"),
        ({"ops": [{**ADD, "op": "clamp"}, {**ADD, "op": "clamp", "v": 3}]}, "clamped twice"),
        ({"scope": "[5,5)"}, "holds no position"),
        ({"scope": "everywhere"}, "is none of"),
        ({"scope": 5}, "not text"),
        ({"scope": "all after 4294967301"}, "no model has so many"),
        ({"scope": "all after " + 20 * "9"}, "is none of"),
        ({"scope": "[0," + 5000 * "9" + ")"}, "is none of"),
        ({"ops": [{**ADD, "schedule": {"points": [[0, 1.0], [3000000000, 0.5]]}}]}, "1073741824 at most"),
        ({"capture": {"sae": "late", "mode": "topk", "k": 3}}, "needs an `id`"),
        ({"id": "a", "capture": {"sae": "late", "mode": "topk", "k": 0}}, "top 0"),
        ({"id": "a", "capture": {"sae": "late", "mode": "topk", "k": 97}}, "top 97"),
        ({"id": "a", "capture": {"sae": "late", "mode": "latents"}}, "names none"),
        ({"id": "a", "capture": {"sae": "late", "mode": "latents", "latents": [5, 5]}}, "names one twice"),
        ({"id": "a", "capture": {"sae": "late", "mode": "latents", "latents": [1.5]}}, "not a list of numbers"),
        ({"id": "a", "capture": {"sae": "late", "mode": "mean"}}, "no capture mode"),
        ({"id": "a", "capture": {"sae": "late", "mode": "max", "stage": "during"}}, "no capture stage"),
        ({"id": "a", "capture": {"sae": "late"}}, "lacks mode"),
        ({"id": "a" * 129}, "longer than 128"),
    ],
)
def test_what_cannot_be_done_as_asked_is_refused_in_a_sentence(block: Any, says: str) -> None:
    with pytest.raises(SpecError) as refusal:
        parse(block if isinstance(block, str) else json.dumps(block), SITES, layers=4, width=64)
    assert says in str(refusal.value)
    assert isinstance(refusal.value, ValueError), "a ValueError is what a server answers with 400"


def test_without_capture_none_is_taken() -> None:
    sites = Sites.parse({**BLOCK, "capture": False})
    with pytest.raises(SpecError, match="without capture"):
        asked({"id": "a", "capture": {"sae": "late", "mode": "max"}}, sites)


def test_an_sae_elsewhere_needs_to_be_meant() -> None:
    sites = Sites.parse({**BLOCK, "layers": [1, 3], "allow_layer_mismatch": True})
    assert asked({"ops": [{**ADD, "layer": 3}]}, sites).ops[0].layer == 3
    with pytest.raises(SpecError, match="not hooked"):
        asked({"ops": [{**ADD, "layer": 2}]}, sites)


def test_sites_come_back_from_their_configuration() -> None:
    again = Sites.parse(json.loads(json.dumps(SITES.as_config())))
    assert again.as_config() == SITES.as_config()
    assert again.digest == SITES.digest
    assert SITES.layers == (1, 2)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ([], "not a mapping"),
        ({"saes": {}}, "at least one SAE"),
        ({"sae": {}}, "nearest: saes"),
        ({**BLOCK, "format": FORMAT + 1}, "format"),
        ({"saes": {"a": {"loader": "folder", "layer": 1, "d_in": 64}}}, "d_sae"),
        ({"saes": {"a": {"loader": "folder", "layer": 1, "d_in": 64, "d_sae": 96, "width": 3}}}, "width"),
        ({**BLOCK, "layers": [-1]}, "at least one"),
    ],
)
def test_sites_that_make_no_sense_are_refused(block: Any, says: str) -> None:
    with pytest.raises(EngineError) as refusal:
        Sites.parse(block)
    assert says in str(refusal.value)
