"""Shards of earlier schema versions, brought forward when they are read. The files themselves stay as they were written.

1 → 2   an arm is planned at once and its members carry the plan's hash; older members share one standing plan
2 → 3   columns and tables are added: what was not recorded is NULL
3 → 4   trials begin with tokens and not with text, and ops may have more than their five columns: columns are added
4 → 5   areas of detectors: columns are added
"""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from esr.store import schema
from esr.store.shards import Shard

Step = Callable[[str, pa.Table], pa.Table]


def plans(table: str, data: pa.Table) -> pa.Table:
    return data.append_column("plan", pa.array(["version-1"] * len(data))) if table == "members" else data


def widened(table: str, data: pa.Table) -> pa.Table:
    """Only columns were added; `schema.typed` fills them with NULL."""
    return data


STEPS: dict[int, Step] = {1: plans, 2: widened, 3: widened, 4: widened}
"""By the version they start from."""


def read(shard: Shard) -> pa.Table:
    """The rows of a shard in today's schema."""
    return forward(shard, pq.ParquetFile(shard.path).read())


def forward(shard: Shard, data: pa.Table) -> pa.Table:
    """What a shard holds, in today's schema."""
    for version in range(shard.version, schema.VERSION):
        data = STEPS[version](shard.table, data)
    return schema.typed(
        shard.table, data.select([name for name in data.column_names if name in schema.table(shard.table).schema.names])
    )
