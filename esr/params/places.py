"""Where things lie: the checkout, params.yaml, the store, the files of experiments."""

import os
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
"""The checkout: params.yaml, flows/ and store/ are in it unless the environment says otherwise."""


def path() -> Path:
    """params.yaml, or $ESR_PARAMS."""
    return Path(os.environ.get("ESR_PARAMS") or HOME / "params.yaml")


def store() -> Path:
    """Where results are kept: store/ in the checkout, or $ESR_STORE; of an object store the copy here, which $ESR_MIRROR may place elsewhere."""
    named = os.environ.get("ESR_MIRROR") if remote() else os.environ.get("ESR_STORE")
    return Path(named or HOME / "store").absolute()


def remote() -> str | None:
    """The object store that results are shared through, s3://bucket/prefix, where $ESR_STORE names one."""
    named = os.environ.get("ESR_STORE", "")
    return named if named.startswith("s3://") else None


def resolve(relative: str) -> Path:
    """A path written in params.yaml: absolute, or relative to the checkout."""
    return Path(relative) if Path(relative).is_absolute() else HOME / relative


def source(hub: str, revision: str) -> tuple[str, dict[str, str]]:
    """What a model's files are asked for by: its folder, or its name on the hub, with the revision that is meant there."""
    local = resolve(hub)
    return (str(local), {}) if local.is_dir() else (hub, {"revision": revision})


def experiments() -> dict[str, Path]:
    """The file of each experiment by its name: exp*.py in flows/ and in the folders that $ESR_EXPERIMENTS names."""
    further = [Path(name) for name in os.environ.get("ESR_EXPERIMENTS", "").split(os.pathsep) if name]
    found = {file.stem: file for folder in (HOME / "flows", *further) for file in folder.glob("exp*.py")}
    return dict(sorted(found.items()))
