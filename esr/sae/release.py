"""SAELens' released SAEs, by the names of its own registry; sae_lens fetches and loads them."""

import difflib
from typing import Any

from torch import Tensor

from esr.errors import SaeError, one_of
from esr.sae.canonical import Sae
from esr.sae.folder import from_saelens


def load(release: str, id: str, *, name: str) -> Sae:
    known(release, id, name=name)
    from sae_lens import SAE

    try:
        sae: Any = SAE.from_pretrained(release, id, device="cpu", dtype="float32")
    except OSError as error:
        raise SaeError(
            f"SAE {name!r}: {release}/{id} is not here nor on the hub ({type(error).__name__}); log in, or check the network"
        ) from None
    return from_loaded(sae, name=name)


def from_loaded(sae: Any, *, name: str) -> Sae:
    """From a sae_lens SAE object, whose own loader has already folded what it folds."""
    weights: dict[str, Tensor] = {key: value.detach() for key, value in sae.state_dict().items()}
    return from_saelens(sae.cfg.to_dict(), weights, name=name)


def known(release: str, id: str, *, name: str) -> None:
    """Refuses a release or id that SAELens' registry does not have."""
    from sae_lens.loading.pretrained_saes_directory import (
        get_pretrained_saes_directory,
    )

    registry = get_pretrained_saes_directory()
    if release not in registry:
        near = difflib.get_close_matches(release, registry, n=5, cutoff=0.3)
        raise SaeError(f"SAE {name!r}: {one_of('release', release, near, 'the SAELens registry')}")
    ids = list(registry[release].saes_map)
    if id not in ids:
        raise SaeError(f"SAE {name!r}: {one_of('id', id, ids[:200], f'release {release}')[:400]}")


def place(release: str, id: str) -> tuple[str, str]:
    """The hub repository of a known release, and where in it the SAE lies."""
    from sae_lens.loading.pretrained_saes_directory import (
        get_pretrained_saes_directory,
    )

    found = get_pretrained_saes_directory()[release]
    return str(found.repo_id), str(found.saes_map[id])
