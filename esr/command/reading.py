"""The store of a command that only reads: one that is not there is a mistake in its name, not an empty one."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esr.store import Store


def existing() -> "Store":
    from esr import params
    from esr.errors import StoreError
    from esr.remote import mirror
    from esr.store import Store

    root = params.store()
    mirror.refresh(root)
    if not root.is_dir():
        raise StoreError(f"no store at {str(root)!r}; correct ESR_STORE, or make one by a run such as `python -m flows exp01 tiny`")
    return Store(root)
