"""What `python -m deployments` does before there is anything to deploy to."""

import pytest

import deployments.__main__ as deployments


def test_a_server_that_is_still_starting_is_waited_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = [OSError("refused"), OSError("refused"), None]
    monkeypatch.setattr(deployments.time, "sleep", lambda _: None)
    assert deployments.answers(lambda: said.pop(0))
    assert said == []
    assert "waiting up to 60 s for the Prefect server at" in capsys.readouterr().err


def test_where_no_server_is_the_wait_ends_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deployments, "PATIENCE", 0.0)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert deployments.main(["init"]) == 2
    assert "no Prefect server answers at http://127.0.0.1:9/api; start one with `prefect server start`" in capsys.readouterr().err
