"""A full run leaves its key nowhere: not in its output, its store, its cache, nor in Prefect's records."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from judge_server import Provider
from judge_setup import KEY, opened, params_at, questions

from esr.judge.providers.keys import public, redacted, secrets

ROOT = Path(__file__).resolve().parent.parent


TOKEN = "tok-" + "9876543210" * 3


@pytest.mark.parametrize("name", ["haiku-4.5", "qwen3-32b"])
def test_a_token_in_an_address_reaches_no_answer_and_no_message(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for key in ("ANTHROPIC_API_KEY", "OPENROUTER_API_KEY"):
        monkeypatch.setenv(key, KEY)
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))
    caplog.set_level("DEBUG", logger="esr")
    provider = Provider().start()
    params = params_at(provider.url, name)
    base = f"{provider.url}{'' if name == 'haiku-4.5' else '/v1'}?token={TOKEN}"
    spec = params.judge(name).model_copy(update={"api_base": base})
    params = params.model_copy(
        update={"judges": params.judges | {name: spec}, "judging": params.judging.model_copy(update={"attempts": 2})}
    )
    judge = opened(params, name, tmp_path / "store")
    judge.grades(questions(2))
    judge.close()
    provider.stop()
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    for text in (kept, caplog.text.encode(), judge.target.id.encode()):
        assert TOKEN.encode() not in text


def test_an_address_is_shown_without_what_may_be_secret() -> None:
    address = "https://me:pass-word@host.example:8443/v1?token=abcdefgh%2Fi&api-version=2024-02-01#x"
    assert public(address) == "https://host.example:8443/v1"
    assert public(None) is None
    hidden = secrets("a-key", address)
    assert redacted("a-key pass-word abcdefgh%2Fi abcdefgh/i 2024-02-01 me", hidden) == "[key] [key] [key] [key] 2024-02-01 me"


SIGNS = 'Ab+c/d_e-f"g\\h=='
SPELT = {
    "json": json.dumps(SIGNS),
    "json twice": json.dumps(json.dumps(SIGNS)),
    "json with slashes escaped": json.dumps(SIGNS).replace("/", "\\/"),
    "json in numbers": "".join(f"\\u{ord(sign):04X}" for sign in SIGNS),
    "json with some numbers": json.dumps(SIGNS).replace("+", "\\u002b"),
    "address": quote(SIGNS),
    "query": quote(SIGNS, safe=""),
    "query in small letters": quote(SIGNS, safe="").lower().replace("ab", "Ab"),
}


@pytest.mark.parametrize("how", list(SPELT))
def test_a_secret_is_known_in_every_form_that_a_body_gives_it(how: str) -> None:
    shown = redacted(f"<{SPELT[how]}>", secrets(SIGNS))
    assert "[key]" in shown
    assert "Ab" not in shown
    assert redacted("\\nAb+c", secrets(SIGNS)) == "\\nAb+c"


def test_a_password_is_known_as_it_is_sent() -> None:
    hidden = secrets(None, "https://me:p%40ssword@host.example/v1")
    header = base64.b64encode(b"me:p@ssword").decode()
    assert redacted(f"Basic {header} p@ssword p%40ssword", hidden) == "Basic [key] [key] [key]"


@pytest.mark.slow
def test_a_full_run_leaves_its_key_nowhere(tmp_path: Path) -> None:
    provider = Provider().start()
    provider.schedule.faults = 0.1
    home = tmp_path / "home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "ESR_"))}
    environment |= {
        "ESR_ENGINE": "fake", "ESR_STORE": str(tmp_path / "store"), "ESR_LIMITS": str(tmp_path / "limits"), "PREFECT_HOME": str(home),
        "ANTHROPIC_BASE_URL": provider.url, "ANTHROPIC_API_KEY": KEY, "PREFECT_LOGGING_LEVEL": "DEBUG", "HOME": str(home),
    }  # fmt: skip
    home.mkdir()
    ran = subprocess.run(
        [sys.executable, "-m", "flows", "exp08", "tiny", "--scale", "smoke", "--judge", "haiku-4.5"],
        cwd=ROOT, env=environment, capture_output=True, timeout=400, check=False,
    )  # fmt: skip
    provider.stop()
    assert ran.returncode == 0, ran.stderr.decode()[-2000:]
    assert provider.answered().total() > 30
    kept = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert any(b"<reply>" in body for body in kept.values()), "the judge's answers are among the files looked through"
    assert any(file.is_relative_to(home) and file.suffix == ".db" for file in kept), "and so are Prefect's records"
    for name, body in [*kept.items(), ("output", ran.stdout + ran.stderr)]:
        assert KEY.encode() not in body, name
