"""Logs for inspect: what is in them, by the zip itself and by the real package, which opens and bundles them."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from store_rows import grade, member, reply

from esr.__main__ import main
from esr.count import metrics
from esr.judge.providers.given import given
from esr.show.inspect_log.arm import reasons
from esr.show.inspect_log.sample import name
from esr.store import Store
from esr.types import Arm, Grade, Member

HOME = Path(__file__).resolve().parent.parent
FILE = "exp01-baseline-tiny.eval"


def asked(i: int, arm: str = "baseline") -> Member:
    """24 latents with four trials each, two of every question."""
    m = member(0, scale="full")
    one = replace(m.trial.latent, index=i // 4, label=f"label <b>{i // 4}</b>")
    question = f"How does one do thing {i % 2}?"
    trial = replace(m.trial, prompt=question + " Stay on topic." * (arm != "baseline"), question=question, seed=i, latent=one)
    trial = replace(
        trial,
        ops=(replace(trial.ops[0], latent=one.index),),
        prefill=(7, 8) if i == 3 else (),
        prefill_text="Well," if i == 3 else "",
    )
    return replace(m, arm=Arm("exp01", arm) if arm == "baseline" else Arm("exp05", arm, "meta-prompt"), trial=trial)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    base, told = ([asked(i, arm) for i in range(96)] for arm in ("baseline", "self_monitor"))
    store.put_members([*base, *told])
    store.put_replies(
        [
            reply(m, f"a reply of {m.trial.seed} \N{ROCKET} \u202eright", "length" if m.trial.seed == 7 else "stop")
            for m in [*base, *told][1:]
        ]
    )
    grades: list[Grade] = []
    for m in [*base, *told][1:]:
        i = m.trial.seed
        grades.append(grade(m, *((20.0, 70.5) if i % 5 == 0 else (40.0,)), missing="malformed" if i == 9 else None))
        if i % 2:
            grades.append(replace(grade(m, 10.0, judge="haiku-4.5"), input_tokens=100, output_tokens=20, cost=0.001))
    store.put_grades(grades)
    store.ingest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESR_STORE", str(store.root))
        assert main(["export-inspect", "exp05", "tiny"]) == 0
    return store.root


@pytest.fixture(scope="module")
def logs(root):
    return root / "inspect" / "exp05-tiny"


def opened(file: Path) -> dict[str, object]:
    with zipfile.ZipFile(file) as found:
        return {name: json.loads(found.read(name)) for name in found.namelist()}


def test_an_arm_is_a_file_and_what_it_is_compared_with_lies_beside(logs):
    assert sorted(path.name for path in logs.iterdir()) == [FILE, "exp05-self_monitor-tiny.eval"]


def test_a_trial_is_a_sample_by_latent_question_and_epoch_alike_in_both_arms(logs):
    one, other = (opened(logs / file) for file in (FILE, "exp05-self_monitor-tiny.eval"))
    ids = [{entry for entry in log if entry.startswith("samples/")} for log in (one, other)]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 96
    assert one["header.json"]["eval"]["config"]["epochs"] == 2
    assert one["header.json"]["eval"]["dataset"]["samples"] == 48
    for entry in ids[0]:
        a, b = one[entry], other[entry]
        assert (a["metadata"]["latent"], a["target"], a["metadata"]["seed"]) == (
            b["metadata"]["latent"],
            b["target"],
            b["metadata"]["seed"],
        )


def test_the_numbers_of_the_header_are_the_houses(root, logs):
    header = opened(logs / "exp05-self_monitor-tiny.eval")["header.json"]
    rows = Store(root).sql("select * from outcomes where experiment = 'exp05' and judge = 'lexical'").to_pandas()
    base = Store(root).sql("select * from outcomes where experiment = 'exp01' and judge = 'lexical'").to_pandas()
    e, d = metrics.estimates(rows)["esr_rate"], metrics.differences(rows, base)["esr_rate"]
    score = next(one for one in header["results"]["scores"] if (one["name"], one["scorer"]) == ("esr", "lexical"))
    assert score["metrics"]["mean"]["value"] == pytest.approx(e.value)
    assert score["metrics"]["mean"]["metadata"]["interval"] == pytest.approx(list(e.interval))
    assert score["metrics"]["mean"]["metadata"]["n"] == e.n
    assert score["metadata"]["minus_exp01/baseline"]["interval"] == pytest.approx(list(d.interval))
    assert (score["scored_samples"], score["unscored_samples"]) == (95, 1)


def test_the_same_results_give_the_same_bytes(root, logs, tmp_path, monkeypatch):
    monkeypatch.setenv("ESR_STORE", str(root))
    assert main(["export-inspect", "exp05", "tiny", "--to", str(tmp_path)]) == 0
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in logs.iterdir()}


def test_one_judge_may_be_chosen_and_a_mistake_is_one_line(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ESR_STORE", str(root))
    assert main(["export-inspect", "exp01", "tiny", "--judge", "haiku-4.5", "--to", str(tmp_path)]) == 0
    assert "judges haiku-4.5" in capsys.readouterr().out
    assert main(["export-inspect", "exp03", "tiny", "--to", str(tmp_path / "none")]) == 2
    assert "exp03 has no trials of 'tiny'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_an_id_holds_no_path_and_tells_like_questions_apart():
    some = [name({"latent": 3, "question": q}) for q in ("../../etc/passwd?", "A" * 200, "A" * 201, "Wie geht's, \u00fc?", "?")]
    assert len(set(some)) == 5
    assert all("/" not in one and "." not in one for one in some)


def test_a_judges_reasons_are_its_feedback_or_its_answer():
    assert reasons('{"feedback": "It comes back.", "attempts": []}') == "It comes back."
    assert reasons("plain words") == "plain words"
    assert given(Path("/nowhere"), ["k"]) == {}


OPEN = """
import json, math, sys
from pathlib import Path
from inspect_ai.log import list_eval_logs, read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries
folder = sys.argv[1]
log = read_eval_log(f"{folder}/exp01-baseline-tiny.eval")
by = {one.metadata["seed"]: one for one in log.samples}
def told(seed):
    one = by[seed]
    return {"id": one.id, "epoch": one.epoch, "input": one.input if isinstance(one.input, str) else [m.text for m in one.input],
            "completion": one.output.completion, "stop": str(one.output.stop_reason), "usage": one.model_usage["tiny"].total_tokens if one.model_usage else None,
            "judges": {name: {"value": {k: None if math.isnan(v) else v for k, v in s.value.items()}, "reason": s.reason, "answer": s.answer,
                              "explanation": s.explanation} for name, s in one.scores.items()}}
print(json.dumps({
    "logs": len(list_eval_logs(folder)), "status": log.status, "samples": len(log.samples), "task": log.eval.task,
    "scores": [[s.scorer, s.name, s.scored_samples, s.unscored_samples] for s in log.results.scores],
    "role": {k: [v.total_tokens, v.total_cost] for k, v in log.stats.role_usage.items()},
    "summaries": len(read_eval_log_sample_summaries(f"{folder}/exp01-baseline-tiny.eval")),
    "one": read_eval_log_sample(f"{folder}/exp01-baseline-tiny.eval", id=by[5].id, epoch=by[5].epoch).metadata["label"],
    "corrected": told(5), "begun": told(3), "malformed": told(9), "cut": told(7), "none": told(0)}))
"""


@pytest.fixture(scope="module")
def inspect() -> Path:
    """The environment that `make inspect` makes."""
    done = subprocess.run(["make", "inspect", f"PYTHON={sys.executable}"], cwd=HOME, capture_output=True, text=True, timeout=600)
    if done.returncode and any(
        said in done.stderr for said in ("No matching distribution", "Could not find a version", "NewConnectionError", "timed out")
    ):
        pytest.skip(f"inspect cannot be installed here, no registry has its packages: {done.stderr.strip().splitlines()[-1][:200]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return HOME / ".venv-inspect" / "bin"


@pytest.mark.slow
def test_the_real_package_opens_what_is_written(inspect, logs, tmp_path):
    done = subprocess.run([inspect / "python", "-c", OPEN, str(logs)], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["logs"], told["status"], told["samples"], told["summaries"], told["task"]) == (
        2,
        "success",
        96,
        96,
        "exp01/baseline",
    )
    assert ["lexical", "esr", 94, 2] in told["scores"]
    assert ["haiku-4.5", "gain", 48, 48] in told["scores"]
    assert told["role"]["haiku-4.5"] == [48 * 120, pytest.approx(0.048)]
    assert told["one"] == "label <b>1</b>"
    right, mine = told["corrected"]["judges"]["lexical"], told["malformed"]["judges"]["lexical"]
    assert right["value"] == {"esr": 1, "multi": 1, "first_score": 20, "attempts": 2, "gain": 50.5}
    assert right["answer"] == "20 → 70.5"
    assert "70.5: attempt 1" in right["explanation"]
    assert told["corrected"]["completion"] == "a reply of 5 \N{ROCKET} \u202eright"
    assert mine["value"] == dict.fromkeys(right["value"])
    assert mine["reason"] == "malformed"
    assert told["none"]["judges"]["lexical"]["reason"] == "not asked"
    assert told["none"]["completion"] == ""
    assert told["begun"]["input"] == ["How does one do thing 1?", "Well,"]
    assert told["cut"]["stop"] == "max_tokens"
    assert told["cut"]["usage"] == 5
    bundle = [inspect / "inspect", "view", "bundle", "--log-dir", str(logs), "--output-dir", str(tmp_path / "bundle")]
    done = subprocess.run(bundle, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "bundle" / "index.html").is_file()
    assert (tmp_path / "bundle" / "logs" / FILE).read_bytes() == (logs / FILE).read_bytes()
