"""What an experiment recorded, as sorted files that figures and DVC read: a Parquet file a table, and about.json.

The same results give the same bytes.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from esr.errors import DataError
from esr.experiment import Experiment, Selection
from esr.params import Params
from esr.show import audited, dosed
from esr.show.tables import where
from esr.store import Store

VLLM = "vllm"
"""The engine that is not named."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One experiment on one model, as graded by one judge at one scale."""

    tables: Mapping[str, pd.DataFrame]
    about: dict[str, Any]
    """Names, settings, and the arms with their planned, graded and missing trials."""

    @property
    def outcomes(self) -> pd.DataFrame:
        return self.tables["outcomes"]

    @property
    def experiment(self) -> str:
        return str(self.about["experiment"])

    @property
    def model(self) -> str:
        return str(self.about["model"])

    @property
    def title(self) -> str:
        """The model as titles name it: with the engine where that is another than vLLM."""
        engine = self.about.get("engine", VLLM)
        return self.model if engine == VLLM else f"{self.model} ({engine} engine)"


ARMS = """
select s.experiment, s.arm, a.kind, a.level, a.place, a.against, a.mean, a.std, s.n_planned, s.n_graded, s.n_missing
from summary s join current_arms a using (experiment, model, arm, scale) where {where} order by s.experiment, a.kind, a.place, s.arm
"""


def recorded(store: Store, params: Params, experiment: Experiment, chosen: Selection) -> Recorded:
    """From the store: every table that the experiment declares."""
    _same_engine(store, chosen)
    tables = {table.name: table.read(store, chosen) for table in experiment.tables}
    condition, asked = where(chosen)
    protocol = params.protocol
    about = {
        "experiment": chosen.experiment,
        "model": chosen.model,
        "scale": chosen.scale,
        "judge": chosen.judge,
        "engine": chosen.engine,
        "arms": store.sql(ARMS.format(where=condition), asked).to_pylist(),
        "tables": sorted(tables),
        "exclude_degraded": protocol.exclude_degraded,
        "confidence": protocol.confidence,
    }
    keys = [f"{arm['experiment']}/{arm['arm']}" for arm in about["arms"]]
    if streams := dosed.streams(store, chosen, keys):
        about["streams"] = [one | {"norm": float(f"{one['norm']:.4g}")} for one in streams]  # what another processor finds too
    if labels := audited.read(store, chosen, protocol.confidence):
        about["audited"] = labels
    return Recorded(tables, about)


MADE_UP = "select distinct starts_with(weights, 'fake:') as fake from trials where trial_id in (select trial_id from outcomes where {where})"


def _same_engine(store: Store, chosen: Selection) -> None:
    """What the fake engine made up is never shown as a model's, nor the other way round: of each arm the newest plan counts."""
    condition, asked = where(chosen)
    found = {row["fake"] for row in store.sql(MADE_UP.format(where=condition), asked).to_pylist()} - {None}
    if found - {chosen.engine == "fake"}:
        made = "by the fake engine" if True in found else "by a real engine"
        raise DataError(
            f"the newest results of {chosen.experiment} on {chosen.model!r} were made {made} and the engine {chosen.engine!r} was asked for; "
            f"run it with that engine again, which computes nothing that is there, or set ESR_ENGINE"
        )


def place(root: Path, params: Params, chosen: Selection) -> Path:
    """Where the export lies: `<root>/export/exp01/tiny`, with `+engine`, `-smoke` and `@judge` where they are not the usual ones."""
    engine = "" if chosen.engine == VLLM else f"+{chosen.engine}"
    scale = "" if chosen.scale == "full" else f"-{chosen.scale}"
    own = params.models[chosen.model].judge if chosen.model in params.models else ""
    by = "" if chosen.judge == own else f"@{chosen.judge}"
    return root / "export" / chosen.experiment / f"{chosen.model}{engine}{scale}{by}"


def write(found: Recorded, folder: Path) -> list[Path]:
    """The files; the same results give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, rows in found.tables.items():
        sink = io.BytesIO()
        pq.write_table(_arrow(rows), sink, compression="zstd")
        files[f"{name}.parquet"] = sink.getvalue()
    files["about.json"] = (json.dumps(found.about, indent=1, sort_keys=True) + "\n").encode()
    for name, data in files.items():
        replace(folder / name, data)
    return [folder / name for name in files]


def _arrow(rows: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)


def read(folder: Path) -> Recorded:
    about = folder / "about.json"
    if not about.is_file():
        raise DataError(f"no {about.name} in {str(folder)!r}; run the experiment or `dvc repro` first")
    told = json.loads(about.read_text(encoding="utf-8"))
    tables = {}
    for name in told["tables"]:
        file = folder / f"{name}.parquet"
        if not file.is_file():
            raise DataError(f"no {file.name} in {str(folder)!r}; run the experiment or `dvc repro` first")
        tables[name] = pq.read_table(file).to_pandas()
    return Recorded(tables, told)


def scale(folder: Path) -> str:
    """Of an export, without reading its tables."""
    return str(json.loads((folder / "about.json").read_text(encoding="utf-8"))["scale"])


def stamp(found: Recorded, file: Path) -> None:
    """A small file that changes when, and only when, what is recorded changes: what DVC's export stages depend on."""
    total, rows = hashlib.sha256(), 0
    for name, table in sorted(found.tables.items()):
        data, sink = _arrow(table), io.BytesIO()
        with pa.ipc.new_stream(sink, data.schema) as stream:
            stream.write_table(data.combine_chunks())
        total.update(name.encode() + sink.getvalue())
        rows += len(table)
    total.update(json.dumps(found.about, sort_keys=True).encode())
    file.parent.mkdir(parents=True, exist_ok=True)
    replace(file, (json.dumps({"rows": rows, "sha256": total.hexdigest()}) + "\n").encode())


def replace(file: Path, data: bytes) -> None:
    """The file holds the data; one that does already is not touched."""
    if not file.is_file() or file.read_bytes() != data:
        anew(file, data)


def anew(file: Path, data: bytes) -> None:
    """Written aside and put in place: whole at every moment, and what the old one was linked to stays as it was."""
    new = file.with_name(file.name + ".new")
    new.write_bytes(data)
    new.replace(file)
