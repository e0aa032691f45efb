"""A judge that nobody answers for is said within seconds and soon ends the run; one that comes back is asked on, and nothing twice."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from flow_runs import place
from judge_server import Provider, Schedule
from judge_setup import KEY, opened, params_at, questions

from esr.errors import JudgeBusy, JudgeError
from esr.judge.providers import reach
from esr.params import HOME

NAMES = ["haiku-4.5", "gpt-5-mini", "qwen3-32b"]
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENROUTER_API_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))
    monkeypatch.setattr(reach, "NEVER", 1.5)
    monkeypatch.setattr(reach, "PAUSE", 0.2)
    monkeypatch.setattr(reach, "_reaches", {})


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider().start()
    yield server
    server.stop()


def refused(url: str, name: str, store: Path, reason: str, **judging: str) -> str:
    judge = opened(params_at(url, name, judging={"attempts": 2, **judging}), name, store)
    try:
        with pytest.raises(JudgeError, match=reason) as caught:
            judge.grades(questions(40))
    finally:
        judge.close()
    assert not isinstance(caught.value, JudgeBusy), "asking again at once would not help"
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_where_nobody_listens_is_said_at_once_and_ends_the_run_with_the_address(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="esr.judge")
    url = NOBODY.replace("//", "//me:hush-hush@") if name == "haiku-4.5" else NOBODY  # aiohttp takes no password beside a key
    said = refused(url, name, tmp_path, "Connection refused")
    assert f"cannot be reached at {NOBODY}" in said
    assert f"mend judges.{name}.api_base in params.yaml" in said
    assert "what was answered is kept" in said
    (warned,) = [record for record in caplog.records if "cannot be reached" in record.getMessage()]
    assert time.time() - warned.created < 90, "and not after a dozen questions of some minutes each"
    assert warned.getMessage() == f"judge {name!r} cannot be reached at {NOBODY}: Connection refused; it is tried for 2 s more"
    assert "hush-hush" not in said + caplog.text


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_host_and_refused_tls_are_no_overload(name: str, provider: Provider, tmp_path: Path) -> None:
    assert "http://no-such-host.invalid" in refused("http://no-such-host.invalid", name, tmp_path, "the host is not found")
    assert provider.url[4:] in refused(provider.url.replace("http", "https"), name, tmp_path, "TLS: ")


def test_an_address_from_the_environment_is_named_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", NOBODY)
    judge = opened(params_at("", "haiku-4.5", api_base=None), "haiku-4.5", tmp_path)
    with pytest.raises(JudgeError, match=rf"at {NOBODY} \(Connection refused\).*mend \$ANTHROPIC_BASE_URL, or name another"):
        judge.grades(questions(1))
    judge.close()


def test_a_model_of_one_s_own_is_told_how_to_be_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", f"{NOBODY}/v1")
    judge = opened(params_at("", "served", api_base=None), "served", tmp_path)
    with pytest.raises(JudgeError) as caught:
        judge.grades(questions(1))
    judge.close()
    said = str(caught.value)
    assert f"cannot be reached at {NOBODY} (Connection refused)" in said
    assert "start it (`vllm serve Qwen/Qwen3-30B-A3B-Instruct-2507`), mend $HOSTED_VLLM_API_BASE, or name another judge" in said
    assert "\n" not in said


def test_a_batch_that_nobody_takes_ends_the_run_too(tmp_path: Path) -> None:
    assert f"cannot be reached at {NOBODY}" in refused(NOBODY, "haiku-4.5", tmp_path, "Connection refused", mode="batch")


def test_what_was_given_up_is_not_waited_for_a_second_time_and_is_asked_when_it_is_there(tmp_path: Path) -> None:
    server = Provider().start()
    port, params = server.server_address[1], params_at(server.url)
    server.stop()
    judge = opened(params, "haiku-4.5", tmp_path)
    for longest in (180.0, 15.0):
        begun = time.monotonic()
        with pytest.raises(JudgeError, match="cannot be reached"):
            judge.grades(questions(3))
        assert time.monotonic() - begun < longest
    server = Provider(port).start()
    assert {grade.missing for grade in judge.grades(questions(3))} == {None}
    judge.close()
    server.stop()


def test_a_provider_that_answered_before_is_waited_for_longer_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    server = Provider(schedule=Schedule(latency=0.05)).start()
    port = server.server_address[1]
    judge = opened(params_at(server.url, concurrency=4), "haiku-4.5", tmp_path)
    judge.grades(questions(2))
    server.stop()
    back: list[Provider] = []
    later = threading.Timer(3 * reach.NEVER, lambda: back.append(Provider(port).start()))
    later.start()
    assert {grade.missing for grade in judge.grades(questions(12))} == {None}
    later.join()
    judge.close()
    assert set((server.answered() + back[0].answered()).values()) == {1}
    assert Counter(server.answered() + back[0].answered()).total() == 12
    back[0].stop()


PROGRAM = """
import sys
from esr.judge.providers import reach
reach.NEVER = 4.0
from flows.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_whose_judge_is_not_there_says_so_ends_soon_and_goes_on_later(
    tmp_path: Path, provider: Provider, prefect_api: str
) -> None:
    where = place(tmp_path, {"haiku-4.5": {"per_minute": 0}})
    words = ["exp08", "tiny", "--scale", "smoke", "--judge", "haiku-4.5"]
    env = {**os.environ, **where.env, "PREFECT_API_URL": prefect_api, "ESR_FAKE_DELAY": "0.05"}
    asked = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=HOME, env=env | {"ANTHROPIC_BASE_URL": NOBODY}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert asked.returncode == 2, asked.stdout + asked.stderr
    assert f"note: judge 'haiku-4.5' cannot be reached at {NOBODY}: Connection refused" in asked.stdout
    (sentence,) = asked.stderr.splitlines()
    assert sentence.startswith("error: judge 'haiku-4.5'")
    assert f"{NOBODY} (Connection refused)" in sentence
    assert "$ANTHROPIC_BASE_URL" in sentence
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import LogSort
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_api}), get_client(sync_client=True) as client:
        told = [line.message for line in client.read_logs(limit=200, sort=LogSort.TIMESTAMP_DESC)]
    assert any(f"cannot be reached at {NOBODY}: Connection refused; it is tried for" in line for line in told), "on its page too"
    assert where.generated()
    code, said = where.run(*words, ANTHROPIC_BASE_URL=provider.url, PREFECT_API_URL=prefect_api)
    assert code == 0, said
    assert set(where.generated().values()) == {1}, "what was generated stays"
    assert set(provider.answered().values()) == {1}
