"""How long experiments take on so many GPUs: the simulation against what follows by hand, and docs/deployments.md against it."""

import json

import pytest

from esr import experiment as experiments
from esr.__main__ import main
from esr.params import HOME, load
from esr.study.makespan import LOADING, SHORTEST, Load, Part, load_of, simulate
from esr.study.workload import workload

HOUR = 3600


def of(model: str, *parts: Part, gpus: int = 1, per_minute: int = 0) -> Load:
    return Load(model, 1000.0, gpus, "j", per_minute, 0.0, 0, 2, parts)


def hours(n: float) -> int:
    """Tokens that an engine of `of` generates in so long."""
    return int(n * HOUR * 1000)


def test_one_gpu_takes_the_sum_and_many_share_it() -> None:
    loads = [of("a", Part("x", hours(6), 0)), of("b", Part("x", hours(2), 0))]
    one, eight = (simulate(loads, n, {"j": "p"}) for n in (1, 8))
    assert one.hours == pytest.approx(8 + 2 * LOADING / HOUR)
    assert one.opened == 2
    assert one.bottleneck == "the GPUs"
    assert 1 + LOADING / HOUR <= eight.hours <= 1 + (3 * LOADING + 2 * SHORTEST) / HOUR


def test_nothing_takes_less_than_the_judge_at_its_limit() -> None:
    found = simulate([of("a", Part("x", hours(1), 6000), per_minute=10)], 8, {"j": "p"})
    assert found.judging == 10.0
    assert 10 <= found.hours < 10.2
    assert found.bottleneck == "the judge's calls a minute"
    two = [of(name, Part("x", hours(1), 6000), per_minute=10) for name in "ab"]
    assert simulate(two, 8, {"j": "p"}).hours > 20


def test_the_rest_waits_for_the_searches_and_these_for_the_judge_whom_they_meet_first() -> None:
    search = Part("search", hours(1), 600, searches=True)
    found = simulate([of("a", search, Part("x", hours(1), 0), per_minute=10)], 64, {"j": "p"})
    assert found.hours > 1 + 1 / 64
    assert found.bottleneck in ("the searches, whose steps wait for one another", "the judge's calls a minute")
    unlimited = simulate([of("a", search, Part("x", hours(1), 0))], 64, {"j": "p"})
    assert 0.5 < unlimited.hours < 0.8  # two engines search, however many there are


def test_an_engine_of_two_gpus_takes_two() -> None:
    found = simulate([of("a", Part("x", hours(4), 0), gpus=2)], 4, {"j": "p"})
    assert 2 < found.hours < 2.2
    assert found.busy > 0.85


def test_what_experiments_share_is_counted_once() -> None:
    params = load("8b")
    some = [experiments.find(name) for name in ("exp01", "exp05", "exp08")]
    one, all_ = load_of(params, "8b", some[:1]), load_of(params, "8b", some)
    assert one.replies == workload(params, some[0]).replies
    assert all_.replies == one.replies + sum(workload(params, other).own for other in some[1:])
    assert all_.calls == all_.replies


def test_the_command_gives_a_row_for_each_number_of_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "exp01,exp03", "8b,gemma-2b", "--gpus", "8", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["gpus"] for row in found["on"]] == [1, 8]
    assert found["on"][0]["hours"] >= found["gpu_hours"] / 1.01
    assert [row["model"] for row in found["models"]] == ["8b", "gemma-2b"]
    assert main(["plan", "all", "8b", "--gpus", "0"]) == 2
    assert main(["plan", "exp01"]) == 2
    assert main(["plan", "exp01", "8b", "--gpus", "2"]) == 0
    assert "in the authors' way" in capsys.readouterr().out


def test_the_page_says_what_the_command_does(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESR_EXPERIMENTS", raising=False)
    assert main(["plan", "all", "--gpus", "1", "8", "64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    page = (HOME / "docs" / "deployments.md").read_text(encoding="utf-8").partition("## How many GPUs")[2].partition("\n## ")[0]
    text = " ".join(page.split())
    (judge,) = {row["judge"] for row in found["models"]}
    assert (len(found["experiments"]), len(found["models"])) == (14, 5)
    assert "Of all fourteen experiments on the five published models, everything at most" in text
    assert f"hours with `{judge}` at {load().judge(judge).per_minute:,} calls a minute" in text
    rows = [
        f"| {on['gpus']} | {on['hours']} | {on['hours_without_the_judges_limit']} | {on['bottleneck_then']} |" for on in found["on"]
    ]
    assert [line for line in page.splitlines() if line.startswith("| ")][1:] == rows
    calls = sum(row["judge_calls"] for row in found["models"])
    assert f"{calls / 1e6:.2f} million calls take {found['on'][0]['hours']} hours" in text
    large = {row["model"]: row["gpu_hours"] for row in found["models"]}["70b"]
    assert f"Generating takes {found['gpu_hours']} GPU hours, of which `70b` has {large};" in text
    low, high = found["authors_gpu_hours"]
    assert f"take {low} to {high} in the" in text
