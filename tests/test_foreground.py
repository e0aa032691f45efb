"""`python -m flows` as a person meets it: whole runs and every way to go wrong, each said in one sentence."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from flow_runs import Place, place

from esr.params import HOME

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
from flows.__main__ import main
code = main(sys.argv[1:])
import json
print(json.dumps({"code": code, "loaded": sorted({"torch", "vllm", "transformers"} & set(sys.modules))}))
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """exp08 run once with a server of its own, as on a bare machine."""
    where = place(tmp_path_factory.mktemp("foreground"))
    code, said = where.run("exp08", "tiny", "--scale", "smoke")
    assert code == 0, said
    return where, said


def test_a_run_says_its_plan_its_table_and_where_the_figure_is(done: tuple[Place, str]) -> None:
    _, said = done
    assert "plan: at most" in said
    assert "nothing of it is there yet" in said
    assert "exp08/no-steering" in said
    assert "exp01/baseline" in said
    assert "multi − baseline" in said
    (line,) = [line for line in said.splitlines() if line.startswith("figure: ")]
    assert Path(line.removeprefix("figure: ")).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("room", [None, 80, 110, 150])
def test_the_closing_table_keeps_names_and_intervals_whole(room: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    from flows.foreground import closing

    cells = ["exp05/steered_latent_label", "1,152", "0", "29.9 [28.4, 31.4]", "28.8 % [26.3, 31.5]", "17.7 % [15.6, 20.0]",
             "+11.7 [+8.6, +14.7]", "+6.6 [+4.0, +9.0]", "+10.7 [+7.6, +13.7]", "–"]  # fmt: skip
    closing("exp05 tiny full", [cells], room)
    said = capsys.readouterr().out
    assert "exp05/steered_latent_label" in said
    assert "[+8.6, +14.7]" in said
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= (room or 210)


def test_its_own_server_keeps_the_history_in_the_store(done: tuple[Place, str]) -> None:
    import sqlite3

    where, _ = done
    with sqlite3.connect(where.store / "prefect" / "prefect.db") as database:
        names = {name for (name,) in database.execute("select f.name from flow_run r join flow f on f.id = r.flow_id")}
        states = dict(database.execute("select state_type, count(*) from task_run group by 1"))
    assert names == {"exp08"}
    assert set(states) == {"COMPLETED"}
    assert states["COMPLETED"] >= 10


def test_a_second_run_loads_no_engine(done: tuple[Place, str], prefect_api: str) -> None:
    where, _ = done
    made = where.generated()
    env = {**os.environ, **where.env, "PREFECT_API_URL": prefect_api}
    line = [sys.executable, "-c", PROGRAM, "exp08", "tiny", "--scale", "smoke"]
    said = subprocess.run(line, cwd=HOME, env=env, capture_output=True, text=True, timeout=800)
    assert json.loads(said.stdout.splitlines()[-1]) == {"code": 0, "loaded": []}, said.stderr
    assert "are there and are not computed again" in said.stdout
    assert where.generated() == made


WRONG = {
    "experiment": (["eexp01", "tiny"], {}, "no experiment 'eexp01' in flows/; nearest: exp01"),
    "model": (["exp01", "tny"], {}, "no model 'tny' in params.yaml; nearest: tiny"),
    "scale": (["exp01", "tiny", "--scale", "smok"], {}, "no scale 'smok' in params.yaml; nearest: smoke"),
    "judge": (["exp01", "tiny", "--judge", "haiku"], {}, "no judge 'haiku' in params.yaml; nearest: haiku-4.5"),
    "engine": (["exp01", "tiny"], {"ESR_ENGINE": "vlm"}, "no engine 'vlm' in $ESR_ENGINE; nearest: vllm"),
    "key": (["exp01", "tiny", "--judge", "sonnet-4.5"], {}, "ANTHROPIC_API_KEY"),
    "labels": (["exp01", "8b"], {}, "no labels at"),
    "weights": (["exp01", "nowhere"], {"ESR_ENGINE": "hf"}, "there is no config.json"),
    "server": (
        ["exp01", "tiny", "--scale", "smoke"],
        {"PREFECT_API_URL": "http://127.0.0.1:9/api"},
        "no Prefect server answers at",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_user_can_do_wrong_is_one_sentence(wrong: str, tmp_path: Path) -> None:
    where = place(tmp_path)
    text = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(
        text.replace("hub: esr/organism/data/tiny-plain", "hub: no/such/folder").replace("  tiny-plain:\n", "  nowhere:\n")
    )
    words, env, sentence = WRONG[wrong]
    code, said = where.run(*words, **env)
    assert code == 2
    assert sentence in said.splitlines()[-1]
    assert said.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in said


def test_a_store_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said = place(tmp_path / "p").run("exp01", "tiny", ESR_STORE=str(tmp_path / "file" / "store"))
    assert code == 2
    assert said.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs privileges that are not here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_full_disk_is_one_sentence_and_loses_nothing(small_disk: Path, tmp_path: Path, prefect_api: str) -> None:
    where = place(tmp_path / "p")
    filled = small_disk / "filler"
    filled.write_bytes(b"\0" * 1_380_000)
    env = {"ESR_STORE": str(small_disk / "store"), "PREFECT_API_URL": prefect_api}
    code, said = where.run("exp08", "tiny", "--scale", "smoke", **env)
    assert code == 2, said
    assert said.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in said
    kept = list((small_disk / "store" / "shards").rglob("*.parquet"))
    filled.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    code, said = where.run("exp08", "tiny", "--scale", "smoke", **env)
    assert code == 0, said
    assert all(path.exists() for path in kept)


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(tmp_path: Path, prefect_api: str) -> None:
    where = place(tmp_path)
    process = where.command("exp08", "tiny", "--scale", "smoke", ESR_FAKE_DELAY="0.3", PREFECT_API_URL=prefect_api)
    until = time.monotonic() + 300
    while not where.log.exists() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "stopped; what was computed is kept, go on with: python -m flows exp08 tiny --scale smoke"
    assert "Traceback" not in said
    code, said = where.run("exp08", "tiny", "--scale", "smoke", PREFECT_API_URL=prefect_api)
    assert code == 0
    assert set(where.generated().values()) == {1}


def test_the_server_of_a_run_ends_with_it_also_when_it_is_killed(tmp_path: Path) -> None:
    where = place(tmp_path)
    process = where.command("exp08", "tiny", "--scale", "smoke", ESR_FAKE_DELAY="1", PREFECT_API_URL="")
    until = time.monotonic() + 300
    while not where.log.exists() and time.monotonic() < until:
        time.sleep(0.2)
    (server,) = (child.pid for child in psutil.Process(process.pid).children() if "prefect.server" in " ".join(child.cmdline()))
    process.kill()
    until = time.monotonic() + 120
    while Path(f"/proc/{server}").exists() and time.monotonic() < until:
        time.sleep(0.2)
    process.communicate(timeout=120)
    assert not Path(f"/proc/{server}").exists()
