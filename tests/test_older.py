"""Stores from before a trial's meaning was recorded: what is proved stays and is counted on, the rest stays and is said."""

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from time import monotonic, process_time

import pytest

from esr.params import HOME
from esr.store import Store
from esr.study import older
from esr.study.study import Study

PACKED = Path(__file__).parent / "data" / "store-version-2.zip"
COLUMNS = "experiment, arm, judge, scale, latent, question, seed, boost, threshold, n_attempts, first_score, last_score, multi, corrected, degraded, gain"


@pytest.fixture
def old(tmp_path: Path) -> Store:
    with zipfile.ZipFile(PACKED) as packed:
        packed.extractall(tmp_path)
    return Store(tmp_path)


def study(store: Store, **changes: object) -> Study:
    found = Study.of("tiny", "smoke", store)
    params = found.params
    for name, value in changes.items():
        if name in ("repo",):
            params = params.model_copy(
                update={"saes": {**params.saes, "tiny-l3": params.sae("tiny-l3").model_copy(update={name: value})}}
            )
        else:
            model = params.model("tiny").model_copy(update={name: value})
            params = params.model_copy(update={"models": {**params.models, "tiny": model}})
    return replace(found, params=params)


def outcomes(store: Store) -> list[dict[str, object]]:
    return store.sql(f"select {COLUMNS} from outcomes order by all").to_pylist()


def shuffled(into: Path) -> Path:
    """The shipped SAE with its decoder rows in another order."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(HOME / "esr/organism/data/sae", into)
    weights = load_file(into / "sae_weights.safetensors")
    weights["W_dec"] = weights["W_dec"].flip(0).contiguous()
    save_file(weights, into / "sae_weights.safetensors")
    return into


def test_an_old_store_is_adopted_whole_and_once(old: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESR_ENGINE", "fake")
    s, before = study(old), outcomes(old)
    rows = old.sql("select * from trials order by trial_id").to_pylist()
    replies = old.sql("select count(*) as n from replies semi join trials using (trial_id)")["n"][0].as_py()
    grades = old.sql("select count(*) as n from grades semi join trials using (trial_id)")["n"][0].as_py()
    found = older.adopt(s)
    assert found is not None
    assert (found.adopted.trials, found.adopted.replies, dict(found.kept), found.new) == (len(rows), replies, {}, True)
    ids = [row["trial_id"] for row in old.sql("from trials where meaning is not null").to_pylist()]
    assert len(set(ids)) == len(rows)
    assert old.known("replies", ids) == set(ids)
    now = old.sql("select count(*) as n from grades where trial_id in (select unnest(?))", [ids])["n"][0].as_py()
    assert now == grades
    assert before == outcomes(old)
    assert not set(old.sql("select trial_id from outcomes")["trial_id"].to_pylist()) & {row["trial_id"] for row in rows}
    files = sorted((old.root / "shards").rglob("*.parquet"))
    again = older.adopt(s)
    assert again is not None
    assert (again.adopted, again.new, again.sentences) == (found.adopted, False, [])
    shutil.rmtree(old.root / "adopted")
    older.adopt(s)
    assert sorted((old.root / "shards").rglob("*.parquet")) == files, "what is done again leaves the same shards"
    assert older.adopt(study(old, max_model_len=513)) is not None


def test_the_ids_are_those_that_a_plan_of_today_gives(old: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every adopted trial's content, with today's meaning, has the id under which it is found."""
    from esr.types import Latent, Op, Sampling, Trial

    monkeypatch.setenv("ESR_ENGINE", "fake")
    s = study(old)
    older.adopt(s)
    rows = old.sql("from trials where meaning is not null").to_pylist()
    assert rows
    for row in rows:
        sampling = Sampling(row["temperature"], row["top_p"], row["repetition_penalty"], row["max_tokens"])
        same = {name: row[name] for name in ("model", "weights", "prompt", "prompt_format", "seed", "scope")}
        trial = Trial(**same, meaning=s.meaning, sampling=sampling, ops=tuple(Op(**op) for op in row["ops"]), latent=Latent(0))
        assert (trial.id, trial.meant) == (row["trial_id"], row["meaning"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [("sae", "held something else"), ("family", "chat family was tiny and is llama3"), ("manifest", "no run tells")],
)
def test_what_cannot_be_proved_stays_and_is_said(
    old: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ESR_ENGINE", "fake")
    if change == "manifest":
        shutil.rmtree(old.root / "shards" / "runs")
    s = study(
        old,
        **({"repo": str(shuffled(tmp_path / "sae"))} if change == "sae" else {"family": "llama3"} if change == "family" else {}),
    )
    before, whole = outcomes(old), old.sql("select count(*) as n from trials")["n"][0].as_py()
    steered = old.sql("select count(*) as n from trials where len(ops) > 0")["n"][0].as_py()
    found = older.adopt(s)
    assert found is not None
    kept = steered if change == "sae" else whole
    assert found.adopted.trials == whole - kept
    assert sum(n.trials for n in found.kept.values()) == kept
    assert [f"{kept:,} older trials" in line and reason in line for line in found.sentences][-1]
    assert outcomes(old) == before, "they are still there to look at"
    assert older.adopt(study(old)) is not None, "and are adopted once what they rest on is back"
    if change == "manifest":
        from esr.__main__ import main

        monkeypatch.setenv("ESR_STORE", str(old.root))
        assert main(["doctor"]) == 0
        assert f"{kept:,} older trials of 'tiny'" in capsys.readouterr().out


ADOPT = """
import os, sys, signal
from pathlib import Path
from esr.store import Store, shards
from esr.study import older
from esr.study.study import Study
left = int(sys.argv[2])
plain = shards.write
def write(*args):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return plain(*args)
shards.write = write
older.adopt(Study.of("tiny", "smoke", Store(Path(sys.argv[1]))))
"""


def adopting(root: Path, writes: int = -1) -> "subprocess.Popen[bytes]":
    env = {**os.environ, "ESR_ENGINE": "fake"}
    return subprocess.Popen([sys.executable, "-c", ADOPT, str(root), str(writes)], cwd=HOME, env=env)


@pytest.mark.slow
def test_a_kill_at_any_write_and_two_at_once_end_the_same(old: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
    before, ends = outcomes(old), []
    copies = [Path(shutil.copytree(old.root, tmp_path_factory.mktemp("killed") / "store")) for _ in range(4)]
    for writes, root in enumerate(copies[:3]):
        assert adopting(root, 2 * writes).wait() == -9
        assert outcomes(Store(root)) == before, "until its end what counted before counts"
        assert adopting(root).wait() == 0
        ends.append(root)
    both = [adopting(copies[3]), adopting(copies[3])]
    assert [one.wait() for one in both] == [0, 0]
    names = {str(path.relative_to(root)) for root in [*ends, copies[3]] for path in (root / "shards").rglob("*.parquet")}
    for root in [*ends, copies[3]]:
        assert {str(path.relative_to(root)) for path in (root / "shards").rglob("*.parquet")} == names
        assert outcomes(Store(root)) == before


@pytest.mark.quiet
def test_thousands_are_adopted_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from store_rows import PLAIN

    from esr.types import BASELINE, Attempt, Grade, Latent, Member, Op, Reply, Trial

    monkeypatch.setenv("ESR_ENGINE", "fake")
    with zipfile.ZipFile(PACKED) as packed:
        packed.extractall(tmp_path)
    store = Store(tmp_path)
    s, n = study(store), 25_000
    trials = [
        Trial(
            model="tiny", weights=s.weights, meaning="", prompt=f"question {i % 38}", prompt_format="clean", seed=i, sampling=PLAIN,
            ops=(Op("add", 3, 2.0, 3, "tiny-l3"),), latent=Latent(3),
        )
        for i in range(n)
    ]  # fmt: skip
    store.put_members([Member(arm=BASELINE, model="tiny", scale="full", trial=trial) for trial in trials])
    store.put_replies(
        [
            Reply(trial_id=t.id, text="words " * 90, token_ids=(1,) * 100, n_prompt_tokens=9, finish_reason="stop", applied=9)
            for t in trials
        ]
    )
    store.put_grades(
        [Grade(trial_id=t.id, latent=3, judge="lexical", judge_prompt="p", attempts=(Attempt(9.0, "words", 0, 5),)) for t in trials]
    )
    store.ingest()
    _ = s.meaning
    start, cpu = monotonic(), process_time()
    found = older.adopt(s)
    took, worked = monotonic() - start, process_time() - cpu
    assert found is not None
    assert found.adopted.trials > n
    assert worked < 10, (took, worked)
    rows = store.sql("select n_graded from summary where arm = 'baseline' and scale = 'full'").to_pylist()
    assert rows == [{"n_graded": n}]
