"""Work pools by what their workers hold, and which one a model needs."""

from pathlib import Path

import pytest

from deployments import catalogue, definitions, pools, service
from deployments.service import FILE
from esr.errors import ParamsError
from esr.params import load


@pytest.mark.parametrize(
    ("revision", "together", "stages", "pool"),
    [("main", 1, 1, "gpu1"), ("main", 2, 1, "gpu2tp"), ("main", 1, 2, "gpu2tp"), ("main", 2, 2, "gpu4tp"), ("local", 1, 1, "cpu"),
     ("local", 4, 1, "gpu4tp")],
)  # fmt: skip
def test_a_model_says_by_its_weights_and_how_many_gpus_share_it_which_it_needs(
    revision: str, together: int, stages: int, pool: str
) -> None:
    share = {"revision": revision, "tensor_parallel": together, "pipeline_parallel": stages}
    assert load().models["70b"].model_copy(update=share).pool == pool


def test_a_worker_is_of_the_pool_of_so_many_devices_as_it_sees() -> None:
    assert [pools.of_devices(devices) for devices in ("", "0", "0,1", "4,5,6,7")] == ["cpu", "gpu1", "gpu2tp", "gpu4tp"]


def test_every_deployment_is_in_a_pool_that_is_made() -> None:
    rows = catalogue.declared(FILE)
    assert {row["work_pool"]["name"] for row in rows} <= set(pools.pools())
    models = load().models
    runs = [row for row in rows if "engine" not in row["tags"]]
    assert all(row["work_pool"]["name"] == models[row["name"]].pool for row in runs)
    assert {row["name"] for row in rows if row not in runs} == set(pools.pools())


def test_more_gpus_in_one_engine_than_any_model_takes_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with pytest.raises(ParamsError) as refused:
        next(service.up(["0", "0,1"]))
    assert str(refused.value) == (
        "--gpus 0,1: no model of params.yaml takes 2 GPUs in one engine, which its `tensor_parallel` or `pipeline_parallel` would say; "
        "`--gpus 0 1` are 2 workers of one GPU each"
    )
    assert not (tmp_path / "prefect").exists()
    monkeypatch.setattr(pools, "pools", lambda: {"cpu": "", "gpu1": "", "gpu2tp": ""})
    for devices in ("0", "1", "0,1", ""):
        pools.check(devices)


def test_deployments_that_are_not_what_models_and_experiments_say_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ESR_EXPERIMENTS", raising=False)
    file = tmp_path / "prefect.yaml"
    monkeypatch.setattr(definitions, "FILE", file)
    file.write_text(definitions.text())
    assert definitions.stale() is None
    file.write_text(definitions.text().replace("name: tiny-plain,", "name: tiny-other,"))
    assert "`python -m deployments.definitions` makes it again" in (definitions.stale() or "")
