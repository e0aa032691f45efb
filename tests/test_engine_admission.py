"""What is done in short for ops without a scope, a schedule or a condition is what is done at length; nothing is loaded."""

import json
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from esr.engine import Capture
from esr.engine.admission import Admission, check_size
from esr.engine.entries import _pieces, resolved, told
from esr.engine.intervention import Condition, Intervention
from esr.engine.plugin import spec as specs
from esr.engine.plugin import text, wire
from esr.engine.plugin.spec import Sites
from esr.errors import SpecError
from esr.types import Op

SITES = Sites.parse({
    "saes": {
        "early": {"loader": "folder", "repo": "/saes/early", "layer": 1, "d_in": 64, "d_sae": 4},
        "späť \"2\"": {"loader": "folder", "repo": "/saes/late", "layer": 2, "d_in": 64, "d_sae": 4},
    },
})  # fmt: skip
ADMISSION = Admission(4, 64, SITES.sae, False, {})  # type: ignore[arg-type]  # of an SAE it asks what a block has too

kinds = st.sampled_from(["add", "clamp", "project_out", "scale"])
values = st.sampled_from([0.0, -0.0, 1.5, -2.0, 1e9, 2e9, 1e-60, 1 / 3, float("nan"), float("inf")])
names = st.sampled_from([*SITES.saes, "unknown"])
plain = st.builds(Op, kinds, st.integers(-1, 4), values, st.integers(0, 3), names)
sound = st.builds(
    Op, st.sampled_from(["add", "clamp"]), st.integers(0, 2), st.sampled_from([0.0, -0.0, 1 / 3]), st.just(1), st.just("early")
)
more = st.builds(
    Intervention, st.just("add"), st.integers(0, 2), st.sampled_from([0.0, 1 / 3]), st.just(1), st.just("early"),
    st.sampled_from(["", "prompt", "all after 7", "[2,9)"]), st.sampled_from([(), ((0, 1.0), (3, 0.5))]),
    when=st.none() | st.builds(Condition, st.just("early"), st.integers(0, 1), st.just(0.5)),
)  # fmt: skip
odd = st.sampled_from([None, True, 1, 1.0, -1, 10**400, "", "1", "add", "early", [], {}, float("nan")])
fields = st.sampled_from(["op", "sae", "i", "v", "layer", "scope", "schedule", "when", "value"])
GOOD = {"op": "add", "sae": "early", "i": 1, "v": 2.0, "layer": 1}


def said(ask: Callable[[], Any]) -> Any:
    """What comes back, or the sentence of a refusal."""
    try:
        return ask()
    except SpecError as error:
        return f"refused: {error}"


def changed(change: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
    return {key: value for key, value in (GOOD | change).items() if key not in left_out}


@settings(deadline=None, max_examples=400)
@given(st.one_of(st.builds(changed, st.dictionaries(fields, odd, max_size=2), st.sets(fields, max_size=1)), odd))
@example(MappingProxyType(GOOD))
def test_an_op_is_taken_or_refused_in_the_same_sentence_by_either_way(block: Any) -> None:
    with patch.object(specs, "FIVE", side_effect=KeyError):
        general = repr(said(lambda: specs._op(block, SITES)))
    assert repr(said(lambda: specs._op(block, SITES))) == general


@settings(deadline=None, max_examples=400)
@given(st.lists(plain | more, max_size=6))
def test_ops_are_refused_for_what_is_first_wrong_with_one_of_them(ops: list[Op]) -> None:
    first = next((found for op in ops if str(found := said(lambda op=op: ADMISSION._op(op))).startswith("refused")), None)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    if first is not None:
        assert said(lambda: ADMISSION.check_steering(ops, "all", None)) == first


@given(
    st.lists(sound, min_size=1, max_size=6),
    st.sampled_from(["all", "prompt", "generated", "[2,9)", "all after 7", "prompt after 7"]),
)
def test_plain_ops_become_the_entries_of_their_pieces(ops: list[Op], scope: str) -> None:
    assert resolved(ops, scope, 5) == tuple(entry for op in ops for entry in _pieces(op, scope, 5))


@given(st.lists(sound | more, max_size=5), st.lists(sound | more, max_size=5), st.randoms(use_true_random=False))
def test_the_same_is_told_of_the_same_entries_in_any_order_and_of_no_others(ops: list[Op], others: list[Op], rng: Any) -> None:
    entries, different = ([entry for op in some for entry in resolved([op], "all", 5)] for some in (ops, others))
    shuffled = rng.sample(entries, len(entries))
    assert repr(told(shuffled)) == repr(told(entries))
    assert (repr(told(different)) == repr(told(entries))) == (sorted(map(repr, different)) == sorted(map(repr, entries)))


@given(plain.filter(lambda op: op.value == op.value) | more)
def test_an_op_is_written_as_json_writes_it_and_read_as_it_was(op: Op) -> None:
    whole = {"op": op.kind, "sae": op.sae, "i": op.latent, "v": op.value, "layer": op.layer}
    if type(op) is Op:
        assert text.op_text(op) == json.dumps(whole, separators=(",", ":"))
    assert text.op_text(text.read_op(json.loads(text.op_text(op)))) == text.op_text(op)
    assert text.op_text(replace(op, value=2)) == text.op_text(replace(op, value=2.0)).replace('"v":2.0', '"v":2')


numbers = st.floats() | st.floats(width=16) | st.integers() | st.integers(-(10**30), 10**30) | st.just(10**400)
blocks = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abé:"), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=400)
@given(
    blocks,
    st.integers(0, 80),
    st.sampled_from(["", "0", "-", ".", "e9", "}", '"', "\\ud800", "\\u0061", "\n", "\x01", "\ud800", "NaN"]),
)
@example(1e400, 0, "")
@example(0, 1, "1" * 5000)
def test_text_is_read_as_json_reads_it_or_refused_in_its_words(block: Any, at: int, put: str) -> None:
    written = json.dumps(block, ensure_ascii=len(put) % 2 == 0)
    written = written[:at] + put + written[at:]

    def ask(read: Callable[[str], Any]) -> str:
        try:
            return repr(read(written))
        except ValueError as error:
            return f"refused: {error}"

    assert ask(text.loads) == ask(json.loads)


keys = st.sampled_from(["id", "ops", "a:b"])
inner = st.sampled_from([
    '"x"', '"::::"', "[]", "{}", '["x::"]', '{"id":1}', '[{"id":1},2]', '[{"id":1,"id":1}]', '[{"a":{"b":1,"b":2}}]', '{"a":1,"a":1}',
    '[["::"],{"id":":"}]',
])  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(st.lists(st.tuples(keys, inner), max_size=4))
def test_no_key_that_comes_twice_is_missed(pairs: list[tuple[str, str]]) -> None:
    written = "{" + ", ".join(f'"{key}" : {value}' for key, value in pairs) + "}"
    doubled: list[str] = []
    found = wire._loads(written, doubled)
    if doubled:
        assert (
            said(lambda: wire.spec(written))
            == f"refused: the steering spec has the key {doubled[0]!r} twice; JSON keeps only the last"
        )
    else:
        assert wire.spec(written) == found


@pytest.mark.parametrize(
    ("capture", "rows"),
    [
        (Capture(layer=1, sae="early", mode="all"), 4096), (Capture(layer=1, mode="residual"), 4096),
        (Capture(layer=1, sae="early", mode="topk", k=32768), 4096),
        (Capture(layer=1, sae="early", mode="latents", latents=tuple(range(65536))), 4096),
    ],
    ids=lambda value: value.mode if isinstance(value, Capture) else "",
)  # fmt: skip
def test_a_capture_of_any_mode_has_a_size_that_it_may_have(capture: Capture, rows: int) -> None:
    check_size(capture, 65536, 10, rows)
    with pytest.raises(SpecError, match=f"a capture of mode '{capture.mode}' would return"):
        check_size(capture, 65536, 10, rows + 1)
    check_size(Capture(layer=1, sae="early", mode="max"), 65536, 10, 2**30)
