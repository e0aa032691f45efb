"""What docs/engine.md shows can be sent as it stands."""

import json
import re
import runpy

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


def test_the_table_of_overheads_is_what_was_measured() -> None:
    script = runpy.run_path(str(HOME / "scripts" / "engine_table.py"))
    if not script["RAW"].is_file():
        assert script["BEGIN"] + script["END"] in TEXT, "a table without raw numbers"
        return
    assert script["filled"](TEXT, json.loads(script["RAW"].read_text(encoding="utf-8"))) == TEXT


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
