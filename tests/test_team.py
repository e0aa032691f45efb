"""Files for a team's server and workers: they parse, and say the versions and pools that the rest says."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deployments import doctor, pools, service
from esr.params import HOME

FOLDER = HOME / "deployments"


def test_the_compose_file_has_the_server_of_the_pinned_version_on_postgres_and_redis() -> None:
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    pinned = dict(line.split("==") for line in (HOME / "constraints.txt").read_text().splitlines() if "==" in line)
    assert services["server"]["image"] == f"prefecthq/prefect:{pinned['prefect']}-python3.11"
    assert set(services["server"]["depends_on"]) == {"postgres", "redis"} == set(services) - {"server"}
    assert services["server"]["environment"]["PREFECT_REDIS_MESSAGING_HOST"] == "redis"


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
        "deployments",
        "automation",
        "address",
        *(f"pool {name}" for name in pools.pools()),
    } == set(found)
    assert found["server"].well
    assert found["store"].well
    assert not found["pool gpu1"].well
    assert "python -m deployments init" in found["pool gpu1"].mend or "prefect worker start" in found["pool gpu1"].mend
    assert str(found["pool gpu1"]).startswith("lacks pool gpu1: ")
    monkeypatch.setattr(service, "PROMPT", 0.1)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        last = list(doctor.found())[-1]
    assert str(last) == "lacks server: does not answer at http://127.0.0.1:9/api   → python -m deployments up"
