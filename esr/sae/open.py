"""The SAE that params.yaml names, loaded once per process."""

import logging
from functools import cache

from esr.errors import ParamsError, SaeError
from esr.params import Params, SaeParams, resolve
from esr.sae import folder, goodfire, release
from esr.sae.canonical import Sae

log = logging.getLogger(__name__)


def open_sae(params: Params, name: str) -> Sae:
    """The SAE that params.yaml calls `name`, checked against what params.yaml says of it; cached per process."""
    return open_block(params.sae(name))


@cache
def open_block(block: SaeParams) -> Sae:
    """The same by its block, for a worker process that has no params.yaml."""
    sae = _load(block)
    for what, said, found in (
        ("d_in", block.d_in, sae.d_in),
        ("d_sae", block.d_sae, sae.d_sae),
        ("layer", block.layer, sae.layer),
    ):
        if said != found:
            raise SaeError(f"SAE {block.name!r} has {what} {found} and params.yaml says {said}; correct saes.{block.name}.{what}")
    log.info("opened SAE %s: %d latents of %d dimensions after block %d", sae.name, sae.d_sae, sae.d_in, sae.layer)
    return sae


def _load(block: SaeParams) -> Sae:
    if block.loader == "goodfire":
        repo, file = _asked(block, "repo"), _asked(block, "file")
        local = resolve(repo) / file
        path = local if local.is_file() else goodfire.download(repo, file)
        return goodfire.load(path, name=block.name, layer=block.layer)
    if block.loader == "saelens":
        return release.load(_asked(block, "release"), _asked(block, "id"), name=block.name)
    return folder.load(resolve(_asked(block, "repo")), name=block.name)


def _asked(block: SaeParams, key: str) -> str:
    value: str | None = getattr(block, key)
    if not value:
        raise ParamsError(f"params.yaml: saes.{block.name} is loaded by {block.loader!r}, which needs the key {key!r}; add it")
    return value
