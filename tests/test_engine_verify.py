"""The self-check says right of an engine and of a server that are right, and what is wrong of others; each of its rules can fail."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from tiny_models import Toy, make_toy
from vllm_server import serving

from esr.engine import Capture, Engine, Output, Reading, Request, hf
from esr.engine import __main__ as command
from esr.engine import verify as checking
from esr.engine.cases import GREEDY, due
from esr.engine.hf import Part
from esr.engine.intervention import Intervention
from esr.engine.open import close_engines, open_engine
from esr.engine.server import Server
from esr.engine.verify import FLOOR, Compared, Verified, compare, report
from esr.errors import EngineError, SpecError
from esr.sae import open_sae
from esr.types import Op

pytest.importorskip("vllm")
spec = pytest.importorskip("esr.engine.plugin.spec")
VllmEngine = pytest.importorskip("esr.engine.vllm").VllmEngine

pytestmark = pytest.mark.slow

KINDS = [
    "plain", "add", "clamp", "project_out", "clamp_projection", "add_norm", "scope", "schedule", "condition", "marker in prompt",
    "marker in reply", "directions",
]  # fmt: skip
SMALL = ["--batch", "4", "--tokens", "8"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("verify"), "llama")


@pytest.fixture(scope="module")
def engine(toy: Toy) -> Iterator[Engine]:
    """As the check opens it, which then gets this one."""
    yield open_engine(toy.params, toy.name, "vllm", layers=(1,))
    close_engines()


@pytest.fixture
def kept(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Not closed by the check, for the next test."""
    monkeypatch.setattr(checking, "close_engine", lambda engine: None)
    return engine


@pytest.fixture(autouse=True)
def known(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "load", lambda model: toy.params)
    monkeypatch.delenv("VLLM_API_KEY", raising=False)


def kinds(block: str, start: str) -> list[str]:
    """Second column of the lines that begin so."""
    return [line[11:28].strip() for line in block.splitlines() if line.startswith(start)]


def sentences(block: str) -> list[str]:
    return [line[11:] for line in block.splitlines() if line.startswith("wrong")]


def test_a_right_engine_ends_with_0_and_a_block_to_paste(toy: Toy, kept: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["verify", toy.name, *SMALL]) == 0
    block = capsys.readouterr().out
    assert block.startswith("esr.engine verify: right\n")
    for said in (
        "float32",
        f"vLLM {kept.fingerprint['vllm_version']}",
        f"torch {kept.fingerprint['torch_version']}",
        "machine ",
        "blocks 1,2",
    ):
        assert said in block
    assert kinds(block, "parity") == KINDS
    assert kinds(block, "throughput") == ["idle", "steered", "clamped"]
    assert block.count("tokens identical") == block.count("counts right") == len(KINDS)
    assert block.count("of a change by") == len(KINDS) - 1, "every intervention does something, and a plain request nothing"
    assert "wrong" not in block


def rescale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference's interventions, by a hundredth."""
    right = hf.delta

    def scaled(x: torch.Tensor, part: Part, generated: Sequence[int]) -> torch.Tensor:
        return 1.01 * right(x, part, generated)

    monkeypatch.setattr(hf, "delta", scaled)


def test_a_reference_of_another_scale_is_told_and_ends_with_1(
    toy: Toy, kept: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rescale(monkeypatch)
    assert command.main(["verify", toy.name, *SMALL]) == 1
    block = capsys.readouterr().out
    assert block.startswith("esr.engine verify: WRONG\n")
    assert {line.split(":")[0] for line in sentences(block)} == set(KINDS) - {"plain"}
    assert "add: streams are" in block


def test_a_condition_that_is_not_weighed_is_told(
    toy: Toy, kept: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = hf.delta

    def always(x: torch.Tensor, part: Part, generated: Sequence[int]) -> torch.Tensor:
        return right(x, replace(part, gate=None), generated)

    monkeypatch.setattr(hf, "delta", always)
    assert command.main(["verify", toy.name, *SMALL]) == 1
    assert {line.split(":")[0] for line in sentences(capsys.readouterr().out)} == {"condition"}


def test_a_count_is_held_against_what_is_due_without_a_reference_too(
    toy: Toy, kept: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = VllmEngine._generate

    async def forgetful(self: Any, request: Request, *plan: Any) -> Output:
        output: Output = await right(self, request, *plan)
        return replace(output, applied=output.applied - 1) if request.ops else output

    monkeypatch.setattr(VllmEngine, "_generate", forgetful)
    assert command.main(["verify", toy.name, *SMALL, "--reference", "none"]) == 1
    block = capsys.readouterr().out
    assert block.count("counts WRONG") == len(sentences(block)) == len(KINDS) - 1
    assert "add: applied 4" in block
    assert "not checked: no reference was asked for" in block


def test_a_request_that_fails_is_named_and_the_others_are_compared(
    toy: Toy, kept: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = VllmEngine.generate

    def failing(self: Any, requests: Sequence[Request]) -> list[Output]:
        if any(isinstance(op, Intervention) and op.when for request in requests for op in request.ops):
            raise EngineError("an intervention was applied 3 times where 9 were due; the reply is discarded")
        outputs: list[Output] = right(self, requests)
        return outputs

    monkeypatch.setattr(VllmEngine, "generate", failing)
    assert command.main(["verify", toy.name, *SMALL]) == 1
    block = capsys.readouterr().out
    assert sentences(block) == ["condition: an intervention was applied 3 times where 9 were due; the reply is discarded"]
    assert block.count("tokens identical") == len(KINDS) - 1
    assert kinds(block, "left out") == ["throughput"]


def test_the_engine_is_let_go(toy: Toy, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """Last of those that share it."""
    assert command.main(["verify", toy.name, *SMALL, "--reference", "none"]) == 0
    assert engine.closed
    assert capsys.readouterr().out.startswith("esr.engine verify: right\n")


BOOST = Request(
    token_ids=(1, 3, 40, 41), sampling=GREEDY, ops=(Op("add", 1, 4.0, 1, "early"),),
    capture=Capture(layer=1, mode="residual", stage="after"),
)  # fmt: skip
END = 2


def answer(reply: Sequence[int], request: Request = BOOST, off: float = 0.0, **changes: Any) -> Output:
    """One whose count is right; every stream is `off` from (1, 1, 1, 1)."""
    rows = len(request.token_ids) + len(reply) - 1
    reading = Reading(
        positions=np.arange(rows), values=np.ones((rows, 4), np.float32) + off, indices=None, expected=rows
    )  # fmt: skip
    output = Output(
        text="", token_ids=tuple(reply), prompt_token_ids=request.token_ids, finish_reason="length", applied=0, reading=reading
    )
    return replace(replace(output, applied=due(request, output)), **changes)


FULL = tuple(range(50, 62))


def held(got: Output, want: Output = answer(FULL), dtype: str = "float32", request: Request = BOOST) -> list[str]:  # noqa: B008  # a value
    one = compare("add", request, got, want, answer(FULL), (END,))
    return Verified({"dtype": dtype, "quantization": "none"}, "", [Compared("plain", True, 0.0), one]).wrong


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_reply_that_breaks_off_is_wrong_however_it_begins(dtype: str) -> None:
    assert held(answer(FULL), dtype=dtype) == []
    assert held(answer(FULL[:5]), dtype=dtype) == ["add: the reply breaks off after 5 of 12 tokens"]
    assert held(answer(()), dtype=dtype)


def test_replies_of_different_length_are_not_identical_and_only_rounding_excuses_them() -> None:
    ended = answer((*FULL[:4], END))
    assert held(ended) == ["add: the reply is not the reference's, and the model is in float32"]
    assert held(ended, dtype="bfloat16") == []
    assert held(answer(FULL), want=ended) == ["add: the reply is not the reference's, and the model is in float32"]


def test_the_count_is_of_the_reply_that_came() -> None:
    ended = answer((*FULL[:4], END))
    assert ended.applied == 8
    wrong = replace(ended, applied=answer(FULL).applied)
    assert held(wrong, dtype="bfloat16") == ["add: applied 15 times where 8 were due"]


def test_what_is_due_is_counted_position_by_position() -> None:
    late = replace(BOOST, ops=(Intervention("add", 1, 4.0, 1, "early", scope="all after 40"),))
    written = replace(BOOST, ops=(Intervention("add", 1, 4.0, 1, "early", scope="generated after 52"),))
    both = replace(BOOST, ops=(*BOOST.ops, Op("add", 2, 4.0, 1, "early"), Op("add", 2, 4.0, 2, "late")), scope="prompt")
    assert [answer(FULL, request).applied for request in (BOOST, late, written, both)] == [15, 12, 8, 8]


def test_streams_are_compared_as_far_as_the_replies_are_the_same() -> None:
    parted = answer((*FULL[:4], *range(100, 108)))
    assert parted.reading is not None
    parted.reading.values[8:] = 7.0
    assert held(parted, dtype="bfloat16") == []
    parted.reading.values[7] = 7.0
    assert "streams are 6.0e+00" in held(parted, dtype="bfloat16")[0]


def test_rounding_alone_is_right_and_no_number_at_all_is_not() -> None:
    assert held(answer(FULL, off=0.9 * FLOOR)) == []
    assert held(answer(FULL, off=1.1 * FLOOR))
    assert held(answer(FULL, off=float("nan")))


def test_an_op_that_shortens_the_stream_leaves_its_rounding_as_it_was() -> None:
    short = answer(FULL, off=-0.9)
    assert held(answer(FULL, off=-0.9 + 0.9 * FLOOR), want=short) == []
    assert held(answer(FULL, off=-0.9 + 1.1 * FLOOR), want=short)


def test_a_capture_that_lost_rows_is_wrong() -> None:
    got = answer(FULL)
    assert held(replace(got, reading=answer(FULL[:3]).reading)) == ["add: the capture has 6 rows where 15 were due"]
    assert held(replace(got, reading=None)) == ["add: the capture has 0 rows where 15 were due"]


@pytest.mark.parametrize(("dtype", "far"), [("float32", 0.02), ("bfloat16", 0.3)])
def test_another_model_is_told_by_its_plain_streams(dtype: str, far: float) -> None:
    one = Compared("plain", True, far)
    assert "plain: streams are" in Verified({"dtype": dtype, "quantization": "none"}, "", [one]).wrong[0]


# over HTTP


@pytest.fixture(scope="module")
def url(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that has the model, and its SAE, by names of its own."""
    close_engines()
    saes = {"ours": toy.params.sae("early").model_copy(update={"name": "ours"}), "late": toy.params.sae("late")}
    sites = spec.Sites(saes=saes, sha256={}, layers=(1, 2), http_directions=1 << 16)
    more = ["--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "32", "--api-key", "key", "--enforce-eager"]
    more += ["--additional-config", json.dumps({spec.KEY: sites.as_config()})]
    with serving(toy.folder, "other", more, tmp_path_factory.mktemp("server") / "log", VLLM_PLUGINS="esr,esr_captures") as address:
        yield address


def test_a_right_server_ends_with_0_and_the_same_block(toy: Toy, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # the directions of the first time are there the second
        assert command.main(["verify", toy.name, *SMALL, "--server", f"{url}/v1/", "--key", "key"]) == 0
        block = capsys.readouterr().out
        assert block.startswith("esr.engine verify: right\n")
        assert f"server     {url}, which serves 'other'" in block
        assert "sites      blocks 1,2, SAE 'ours'" in block
        assert kinds(block, "parity") == KINDS
        assert block.count("tokens identical") == block.count("counts right") == len(KINDS)
        assert kinds(block, "throughput") == ["idle", "steered", "clamped"]
        assert "wrong" not in block
        assert "left out" not in block


def test_a_server_of_another_scale_is_told_and_the_key_may_be_in_the_environment(
    toy: Toy, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rescale(monkeypatch)
    monkeypatch.setenv("VLLM_API_KEY", "key")
    assert command.main(["verify", toy.name, *SMALL, "--server", url]) == 1
    block = capsys.readouterr().out
    assert {line.split(":")[0] for line in sentences(block)} == set(KINDS) - {"plain"}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--key", "wrong"], "wants another key than it got"),
        ([], "wants another key than it got"),
        (["--key", "key", "--served-as", "third"], "and not 'third'"),
    ],
)
def test_a_server_that_cannot_be_asked_is_a_sentence(
    toy: Toy, url: str, more: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["verify", toy.name, "--server", url, *more]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "says"),
    [("http://127.0.0.1:9", "no server answers at"), ("localhost:8000", "no server"), ("http://host:port", "is no address")],
)
def test_where_no_server_is_a_sentence_says_so(toy: Toy, address: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["verify", toy.name, "--server", address]) == 2
    assert says in capsys.readouterr().err


EARLY = {"layer": 1, "d_in": 64, "d_sae": 96}


def asked(toy: Toy, saes: dict[str, Any] | None, served: str = "", **answers: httpx.Response) -> Server:
    """Of a server that is made up; saes None: it has no plugin."""

    def handle(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/v1/sae":
            return httpx.Response(404, json={"detail": "Not Found"}) if saes is None else httpx.Response(200, json={"saes": saes})
        if path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": served or toy.name, "root": "elsewhere"}]})
        return answers.get(path.rsplit("/", 1)[-1], httpx.Response(200, json={"version": "0"}))

    client = httpx.Client(base_url="http://server", transport=httpx.MockTransport(handle))
    return Server.of(client, toy.params, toy.name)


def test_a_server_without_the_plugin_is_told_from_one_that_steers(toy: Toy) -> None:
    with pytest.raises(EngineError, match="has no plugin, so it would not steer"):
        asked(toy, None)
    with pytest.raises(EngineError, match=r"serves 'gpt' \(elsewhere\) and not 'toy-llama'"):
        asked(toy, {"early": EARLY}, "gpt")


@pytest.mark.parametrize(
    ("saes", "says"),
    [
        ({}, "steers by no SAE"),
        ({"early": EARLY | {"layer": 2}}, "none of which is 'early'"),
        ({"early": EARLY | {"sha256": "0" * 64}}, "none of which is 'early'"),
        ({"a": EARLY, "b": EARLY}, "of which a, b may be 'early'"),
    ],
)
def test_a_server_that_steers_by_other_saes_is_refused(toy: Toy, saes: dict[str, Any], says: str) -> None:
    with pytest.raises(EngineError, match=says):
        asked(toy, saes)


def test_an_sae_is_found_by_its_content_before_its_name(toy: Toy) -> None:
    content = open_sae(toy.params, "early").sha256
    found = asked(toy, {"early": EARLY | {"sha256": "0" * 64}, "mine": EARLY | {"sha256": content}})
    assert found.fingerprint["sae"] == "mine"
    assert asked(toy, {"early": EARLY, "a": EARLY}).fingerprint["sae"] == "early"


def test_directions_that_a_server_takes_not_are_left_out_with_the_reason(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    server = asked(toy, {"early": EARLY}, directions=httpx.Response(403, json={"detail": "takes no directions over HTTP"}))
    with pytest.raises(SpecError, match="answers 403: takes no directions over HTTP"):
        server.load_directions("x", tmp_path / "file")
    found = Verified(server.fingerprint, "", left_out={"directions": "it takes none"})
    assert "left out   directions        it takes none" in report(found)


def test_a_steered_reply_that_does_not_say_what_was_applied_is_an_error(toy: Toy) -> None:
    reply = {"choices": [{"text": "", "token_ids": [5], "finish_reason": "length"}]}
    server = asked(toy, {"early": EARLY}, completions=httpx.Response(200, json=reply))
    assert server.generate([replace(BOOST, ops=(), capture=None)])[0].token_ids == (5,)
    with pytest.raises(EngineError, match="does not say what was applied"):
        server.generate([replace(BOOST, capture=None)])
