"""A server that only renders, `vllm launch render`: nothing that it answers is steered, so it takes no spec."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tiny_models import make_toy
from vllm_server import serving

pytest.importorskip("vllm")

pytestmark = pytest.mark.slow

SPEC = json.dumps({"ops": [{"op": "add", "sae": "early", "i": 1, "v": 2.0}]})
ROUTES = {
    "/v1/completions/render": {"prompt": [1, 3, 4]},
    "/v1/chat/completions/render": {"messages": [{"role": "user", "content": "Why?"}]},
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("render")
    with serving(
        make_toy(folder).folder, "toy", [], folder / "log", what=("launch", "render"), VLLM_PLUGINS="esr,esr_captures"
    ) as url:
        yield url


@pytest.mark.parametrize("route", ROUTES)
def test_a_server_that_renders_takes_no_spec_and_renders_without_one(url: str, route: str) -> None:
    def ask(**more: Any) -> httpx.Response:
        return httpx.post(url + route, json={"model": "toy", "max_tokens": 4, **ROUTES[route], **more}, timeout=60)

    assert ask().status_code == 200
    refused = ask(vllm_xargs={"sae": SPEC})
    assert refused.status_code == 400
    assert "drops the steering spec" in refused.text
    misplaced = ask(sae=SPEC)
    assert misplaced.status_code == 400
    assert "vllm_xargs.sae" in misplaced.text
