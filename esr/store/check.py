"""Whether a shard counts: it is checked whole, once a process, before any row of it is read.

A shard that this library wrote says the hash of its bytes, so that no flipped bit passes; of any other, and of those that were
written before there was a hash, every page is read and its columns, types, keys and text are looked at. One that fails is left
alone where it lies and is in nobody's way.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from esr.errors import StoreError
from esr.store import migration, schema
from esr.store.shards import DIGEST, Shard, as_written, leave

_sound: dict[Path, tuple[int, int]] = {}
"""Shards that were found sound, with their size and the time of their last change."""


def sound(shard: Shard) -> bool:
    """Whether it counts; one that does not is named in a warning, once a process while it stays as it is."""
    try:
        at = shard.path.stat()
        state = (at.st_size, at.st_mtime_ns)
        if _sound.get(shard.path) == state:
            return True
        problem = _problem(shard)
    except FileNotFoundError:
        return False
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
    if problem:
        leave(shard.path, problem)
        return False
    _sound[shard.path] = state
    return True


def _problem(shard: Shard) -> str:
    try:
        file = pq.ParquetFile(shard.path, page_checksum_verification=True)
        if digest := file.metadata.metadata.get(DIGEST):
            if not as_written(shard.path, digest):
                return "is not what was written: its bytes do not give the hash that stands in it"
            return schema.unlike(shard.table, file.schema_arrow.empty_table()) if shard.version == schema.VERSION else ""
        data = file.read()
        data.validate(full=True)
        if shard.version == schema.VERSION:
            return schema.unlike(shard.table, data)
        migration.forward(shard, data)
        return ""
    except StoreError as error:
        return f"does not hold what table {shard.table!r} holds: {error}"
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        return f"has a whole footer and a damaged body ({' '.join(str(error).split())[:150]})"
