"""What an SAE's name means: a hash of the files whose numbers it is made of, without loading them.

Files of the hub are named there by their sha256, under which they also lie in its cache; so a hub's SAE has the same content before
and after it is read, and the same under two names.
"""

import re
from functools import cache
from pathlib import Path

from esr.errors import SaeError
from esr.params import SaeParams, resolve
from esr.params.weights import digest, file_digest
from esr.types import content_id

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
"""The files of a folder that SAELens saves."""
RELEASED = (CONFIG, "config.json", "params.npz", WEIGHTS)
"""Files of a released SAE that its loader reads."""
SHA256 = re.compile(r"[0-9a-f]{64}")


def content(block: SaeParams, *, fetch: bool = True) -> str:
    """Of a local folder or file the hash of its bytes; of the hub's, the same, fetched when it is not here.

    Without `fetch`, a hub's SAE that is not here is named by its place there.
    """
    if block.loader == "saelens":
        return _released(block, fetch)
    repo, file = block.repo or "", block.file or ""
    place = resolve(repo) / file if file else resolve(repo)
    if block.loader == "folder":
        lacking = [name for name in (CONFIG, WEIGHTS) if not (place / name).is_file()]
        if not repo or lacking:
            raise SaeError(
                f"SAE {block.name!r}: {repo or 'no folder'!r} has no {', '.join(lacking)}; correct saes.{block.name}.repo"
            )
        return digest(place, (CONFIG, WEIGHTS))
    if place.is_file():
        return file_digest(place)
    found = _cached(repo, [file, file + "h", file.removesuffix("h")])
    if not found and fetch:
        from esr.sae import goodfire

        found = [goodfire.download(repo, file)]
    return _named(found[0]) if found else f"{repo}/{file}"


@cache
def _released(block: SaeParams, fetch: bool) -> str:
    """Of one of SAELens' releases."""
    from esr.sae import open_block, release

    where = f"{block.release}/{block.id}"
    release.known(block.release or "", block.id or "", name=block.name)
    repo, path = release.place(block.release or "", block.id or "")
    names = [path, *(f"{path}/{name}" for name in RELEASED)]
    found = _cached(repo, names)
    if not found and fetch:
        sae = open_block(block)
        found = _cached(repo, names)
        if not found:
            return sae.sha256[:16]
    return content_id("released", [[path.name, _named(path)] for path in found], length=16) if found else where


def _cached(repo: str, names: list[str]) -> list[Path]:
    """Those of a repository's files that lie in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(repo, name) for name in names]
    except HFValidationError:
        return []
    return [Path(path) for path in found if isinstance(path, str)]


def _named(path: Path) -> str:
    """The hash of a file, by which the cache names large ones; cut to 16 digits."""
    name = path.resolve().name
    return name[:16] if SHA256.fullmatch(name) else file_digest(path)
