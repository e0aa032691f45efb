"""Work pools by what their workers hold, and which one a model needs."""

import pytest

from deployments import catalogue, pools
from deployments.service import FILE
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
