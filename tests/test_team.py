"""Files for a team's server and workers: they say the versions, settings and pools that the rest says, and the server starts."""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import team_stack
import yaml
from prefect_database import migrated
from pydantic import AliasChoices, BaseModel
from team_stack import AUTH, Stack, services, stack

from deployments import catalogue, doctor, pools, service
from deployments.server import RECORDER
from esr.params import HOME
from tasks.environment import HEARTBEAT

FOLDER = HOME / "deployments"


def test_the_compose_file_has_the_server_of_the_pinned_version_on_postgres_and_redis() -> None:
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    pinned = dict(line.split("==") for line in (HOME / "constraints.txt").read_text().splitlines() if "==" in line)
    assert services["server"]["image"] == f"prefecthq/prefect:{pinned['prefect']}-python3.11"
    assert set(services["server"]["depends_on"]) == {"postgres", "redis"} == set(services) - {"server"}
    assert services["server"]["environment"]["PREFECT_REDIS_MESSAGING_HOST"] == "redis"
    assert RECORDER.items() <= services["server"]["environment"].items()


def settings_of(model: type[BaseModel]) -> Iterator[str]:
    """The names of environment variables that a model of Prefect's settings reads, old ones included."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_of(field.annotation)
            continue
        alias = field.validation_alias
        choices = [one.upper() for one in alias.choices if isinstance(one, str)] if isinstance(alias, AliasChoices) else []
        yield from [*choices, f"{model.model_config['env_prefix']}{name}".upper()]


@pytest.mark.parametrize("name", ["compose.yaml", ".env.example", "worker.sbatch", "worker@.service"])
def test_every_setting_of_prefect_is_one_that_the_pinned_version_reads(name: str) -> None:
    from prefect.settings import Settings

    named = set(re.findall(r"\bPREFECT_[A-Z_]+", (FOLDER / name).read_text()))
    redis = {one for one in named if one.startswith("PREFECT_REDIS_MESSAGING_")}  # prefect-redis reads these
    assert named - redis <= set(settings_of(Settings))
    assert redis <= {"PREFECT_REDIS_MESSAGING_HOST"}


def test_the_compose_file_asks_for_what_the_example_names_and_says_so_where_it_lacks() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", (FOLDER / "compose.yaml").read_text()))
    named = dict(line.split("=", 1) for line in (FOLDER / ".env.example").read_text().splitlines() if not line.startswith("#"))
    assert asked == set(named) == set(re.findall(r"\$\{(\w+)", (FOLDER / "compose.yaml").read_text()))
    for name, text in services()["server"]["environment"].items():
        assert team_stack.filled(str(text), dict.fromkeys(named, "x")), name  # an empty password lets nobody in
        if "${" in str(text):
            with pytest.raises(LookupError, match=r"set it in \.env"):
                team_stack.filled(str(text), {})


def test_a_run_says_three_times_that_it_lives_before_it_is_taken_for_dead_whoever_started_its_worker() -> None:
    for row in catalogue.declared(service.FILE):
        assert 3 * float(row["job_variables"]["env"][HEARTBEAT]) <= pools.SILENCE.total_seconds()


def test_the_slurm_script_is_bash_and_says_what_it_lacks() -> None:
    script = FOLDER / "worker.sbatch"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    done = subprocess.run(["bash", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode != 0
    assert "PREFECT_API_URL: names the server" in done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_the_unit_is_one_that_systemd_reads(tmp_path: Path) -> None:
    unit = tmp_path / "worker@0.service"
    unit.write_text((FOLDER / "worker@.service").read_text().replace("/srv/esr/.venv/bin/prefect", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert unit.name not in done.stderr


def test_the_doctor_names_what_a_server_lacks_and_the_line_that_mends_it(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("ESR_STORE", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        found = {one.what: one for one in doctor.found()}
    assert {
        "store",
        "server",
        "database",
        "messages",
        "deployments",
        "automation",
        "address",
        *(f"pool {name}" for name in pools.pools()),
    } == set(found)
    assert found["server"].well
    assert found["messages"].well
    assert str(found["database"]).startswith("ok    database: answers, SQLite")
    assert found["store"].well
    assert not found["pool gpu1"].well
    assert "python -m deployments init" in found["pool gpu1"].mend or "prefect worker start" in found["pool gpu1"].mend
    assert str(found["pool gpu1"]).startswith("lacks pool gpu1: ")
    monkeypatch.setattr(service, "PROMPT", 0.1)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        last = list(doctor.found())[-1]
    assert str(last) == "lacks server: does not answer at http://127.0.0.1:9/api   → python -m deployments up"


@contextmanager
def asked(here: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, password: str | None = AUTH) -> Iterator[None]:
    """This process asks that server."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("ESR_STORE", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", here.url)
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    if password:
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", password)
    with temporary_settings({PREFECT_API_URL: here.url, PREFECT_API_AUTH_STRING: password}):
        yield


def test_a_server_with_a_password_is_named_with_the_line_that_gives_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with stack() as here:
        env = {"PREFECT_SERVER_API_AUTH_STRING": AUTH, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        (here.folder / "server").mkdir()
        migrated(here.folder / "server")
        words = ["server", "start", "--port", here.url.split(":")[2].removesuffix("/api")]
        here.prefect("server", words, env, partial(team_stack.healthy, here.url))
        with asked(here, monkeypatch, tmp_path, None):
            lacks = list(doctor.found())[-1]
            assert lacks.said == f"the Prefect server at {here.url} wants a password and PREFECT_API_AUTH_STRING is not set"
            with pytest.raises(service.ServiceError, match="export PREFECT_API_AUTH_STRING=user:password"):
                service.reach(here.url)
        with asked(here, monkeypatch, tmp_path, "team:another"):
            lacks = list(doctor.found())[-1]
            assert lacks.said == f"the Prefect server at {here.url} refuses the password of PREFECT_API_AUTH_STRING"
            assert lacks.mend.startswith("export PREFECT_API_AUTH_STRING=user:password")
        with asked(here, monkeypatch, tmp_path):
            service.reach(here.url)


@pytest.mark.slow
@pytest.mark.skipif(bool(team_stack.lacking()), reason=team_stack.lacking())
def test_the_server_of_the_compose_file_starts_and_the_doctor_misses_what_is_taken_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with stack() as here, asked(here, monkeypatch, tmp_path):
        here.postgres()
        here.redis()
        here.server()
        assert pools.make()[-1] == f"automation {pools.AUTOMATION!r}: made"
        found = {one.what: one for one in doctor.found()}
        assert str(found["database"]) == "ok    database: answers, Postgres"
        assert found["messages"].well
        here.kill("redis")
        found = {one.what: one for one in doctor.found()}
        assert not found["messages"].well
        assert found["messages"].mend.endswith("docker compose -f deployments/compose.yaml up -d redis")
        here.kill("postgres", signal.SIGINT)
        last = list(doctor.found())[-1]
        assert (last.what, last.well) == ("database", False)
        assert last.mend.endswith("up -d postgres")
