"""What docs/engine.md shows can be sent as it stands."""

import json
import re
import runpy

import numpy as np
import pytest
from engine_routes import ROUTES

from esr.engine.plugin.spec import KEY, Sites, parse
from esr.params import HOME

TEXT = (HOME / "docs" / "engine.md").read_text(encoding="utf-8")
SHELL = "".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL))
SITES = Sites.parse(json.loads(re.findall(r"--additional-config '(.*?)'", SHELL, re.DOTALL)[0])[KEY])


def specs() -> list[object]:
    posted = json.loads(re.findall(r"-d '(.*?)'\n", SHELL, re.DOTALL)[0])["vllm_xargs"]["sae"]
    shown = re.findall(r"^spec = (.*)$", TEXT, re.MULTILINE)
    assert len(shown) == 1
    return [posted, *map(json.loads, shown)]


@pytest.mark.parametrize("spec", specs())
def test_a_spec_of_the_documentation_is_accepted(spec: object) -> None:
    found = parse(spec, SITES, layers=32, width=4096)
    assert found.ops
    assert {op.layer for op in found.ops} == {19}


def test_the_documented_limits_are_the_ones_in_the_code() -> None:
    assert f"`max_ops`, {SITES.max_ops}" in TEXT
    assert f"`capture_bytes`, {SITES.capture_bytes >> 30} GiB" in TEXT


SCRIPT = runpy.run_path(str(HOME / "scripts" / "engine_table.py"))


def test_the_tables_of_overheads_are_what_was_measured() -> None:
    assert SCRIPT["filled"](TEXT) == TEXT


def test_what_a_request_costs_is_what_was_measured() -> None:
    found = json.loads((HOME / "docs" / "benchmarks" / "request_cost.json").read_text(encoding="utf-8"))["kinds"]
    add, direction, clamps = (round(found[kind]["in all"]) for kind in ("add", "directions", "clamp"))
    assert (
        f"takes {add} µs with a boost, {direction} with a direction after each of four blocks and {clamps} with 26 clamps" in TEXT
    )


@pytest.mark.parametrize("n", [6, 7, 10, 13, 21])
def test_the_interval_of_a_median_holds_it_as_often_as_it_says(n: int) -> None:
    rng = np.random.default_rng(n)
    rounds = rng.lognormal(sigma=0.5, size=(4000, n))  # as skewed as rounds are, with the median 1
    held = [low <= 1 <= high for low, high in map(SCRIPT["interval"], rounds.tolist())]
    assert np.mean(held) > 0.94


def test_five_rounds_have_no_interval() -> None:
    assert SCRIPT["interval"]([1.0, 1.1, 1.2, 1.3, 1.4]) is None


def test_the_table_of_routes_is_the_one_that_is_tried() -> None:
    table = TEXT.split("<!-- routes -->")[1].split("<!-- /routes -->")[0]
    rows = [
        tuple(cell.strip(" `") for cell in line.strip("|").split("|")) for line in table.splitlines() if line.startswith("| `/")
    ]
    assert rows == [(path, route.newest, route.oldest) for path, route in ROUTES.items()]


def test_a_server_of_the_documentation_names_its_host_and_has_a_key() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("vllm serve")]
    assert lines
    assert all("--host 127.0.0.1" in line for line in lines)
    assert "VLLM_API_KEY=" in SHELL
    assert all("$key" in line for line in SHELL.splitlines() if "curl" in line)
