"""A whole run with the real engine says what a person can act on and nothing else; what vLLM says is in a file that errors name."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flow_runs import Place, place

from esr.engine import log as engine_log
from esr.errors import EngineError
from esr.params import HOME, load

LINES = (
    r"exp01 on tiny, scale smoke, judge lexical(, engine vllm)?",
    r"plan: at most [\d,]+ replies .*",
    r"store \S+: nothing of it is there yet",
    r"(calibrate|calibrate: judge|norm|steer|judge) +[\d,]+(/[\d,]+)?.*",
    r"note: .* (latents|labels) .*",
    r"arm +n +missing +dose +first score +multi-attempt +ESR +multi − baseline +ESR − baseline +multi, equal score +ESR, equal score",
    r"exp01/baseline +\d+ .*",
    r"The residual stream is [\d.]+ long after block 3 \(median over [\d,]+ tokens of 38 unsteered replies\); dose: .*",
    r"figure: \S+\.png",
)
"""All that a run may print where there is no terminal, besides the note under its table."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, "subprocess.CompletedProcess[str]"]:
    """exp01 in small, with the shipped model, on vLLM and with a Prefect server of its own."""
    where = place(tmp_path_factory.mktemp("silence"), fake=False)
    env = {**os.environ, **where.env, "ESR_ENGINE": "vllm"}
    env = {name: value for name, value in env.items() if name not in ("VLLM_LOGGING_LEVEL", "VLLM_CONFIGURE_LOGGING")}
    line = [sys.executable, "-m", "flows", "exp01", "tiny", "--scale", "smoke"]
    return where, subprocess.run(line, cwd=HOME, env=env, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_a_run_leaves_stderr_empty_and_prints_only_its_own_lines(
    done: tuple[Place, "subprocess.CompletedProcess[str]"],
) -> None:
    from esr.show.closing_table import NOTE

    _, ran = done
    assert ran.stderr == ""
    assert ran.returncode == 0
    strange = [
        line for line in ran.stdout.replace(NOTE, "").splitlines() if line and not any(re.fullmatch(p, line.strip()) for p in LINES)
    ]
    assert strange == []


@pytest.mark.slow
def test_what_vllm_says_is_in_a_file_of_the_store(done: tuple[Place, "subprocess.CompletedProcess[str]"]) -> None:
    where, _ = done
    (file,) = (where.store / "logs").glob("engine-*-tiny-*.log")
    said = file.read_text()
    for name in ("MainProcess", "EngineCore"):
        assert re.search(rf"^{name} \d+ (INFO|WARNING)", said, re.MULTILINE), said[:2000]
    assert "Loading safetensors checkpoint shards" in said, "bars that no logger knows of are there too"


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    said = logging.getLogger("vllm")
    before = list(said.handlers), said.propagate, said.level
    yield said
    said.handlers[:], said.propagate, said.level = before


@pytest.mark.usefixtures("logger")
def test_an_engine_that_does_not_open_says_why_and_where_the_rest_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from esr.engine.vllm import VllmEngine

    monkeypatch.setenv("ESR_STORE", str(tmp_path))
    with pytest.raises(EngineError, match=r"vLLM cannot open 'tiny': .*max_num_seqs.*; .*engine-.*\.log has what it said"):
        VllmEngine(load("tiny"), "tiny", max_num_seqs=0)


def test_the_oldest_logs_of_engines_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESR_STORE", str(tmp_path))
    monkeypatch.setattr(engine_log, "KEPT", 2)
    older = [tmp_path / "logs" / f"engine-20260101-00000{i}-tiny-1.log" for i in range(3)]
    (tmp_path / "logs").mkdir()
    for file in older:
        file.touch()
    new = engine_log.new("tiny")
    assert [file.exists() for file in (*older, new)] == [False, False, True, True]


def test_a_process_has_its_file_before_what_it_is_for_is_imported(tmp_path: Path) -> None:
    """As multiprocessing hands it over: what the import prints is in the file."""
    (tmp_path / "talks.py").write_text("import os\nos.write(2, b'on import\\n')\ndef work():\n    print('at work', flush=True)\n")
    program = """
import pickle, sys
from pathlib import Path
from esr.engine.log import Into
import talks
sys.stdout.buffer.write(pickle.dumps(Into(talks.work, Path(sys.argv[1]))))
"""
    env = {**os.environ, "PYTHONPATH": f"{HOME}{os.pathsep}{tmp_path}"}
    handed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "log")], env=env, capture_output=True, check=True).stdout
    receiver = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())()"
    ran = subprocess.run([sys.executable, "-c", receiver], env=env, input=handed, capture_output=True, check=True)
    assert (ran.stdout, ran.stderr) == (b"", b"")
    assert (tmp_path / "log").read_text() == "on import\nat work\n"
