"""What an experiment recorded, as sorted files that figures and DVC read: outcomes.parquet and about.json.

The same results give the same bytes. Which other experiments' arms belong in the picture is said here, once.
"""

import csv
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

from esr.count import metrics
from esr.count.metrics import Difference, Estimate
from esr.errors import DataError
from esr.params import Params
from esr.store import Store

COLUMNS = (
    "experiment", "model", "arm", "judge", "scale", "trial_id", "latent", "question", "seed", "boost", "threshold", "n_attempts",
    "first_score", "last_score", "multi", "corrected", "degraded", "gain",
)  # fmt: skip
ORDER = ["experiment", "arm", "latent", "question", "seed", "trial_id"]
BASELINE = ("exp01", "baseline")
BESIDE = {"exp03": [BASELINE], "exp05": [BASELINE], "exp08": [BASELINE], "exp10": [BASELINE, ("exp03", "detectors")]}
"""Arms of other experiments that an experiment is held against."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One experiment on one model, as graded by one judge at one scale."""

    outcomes: pd.DataFrame
    about: dict[str, Any]
    """Names, settings, and planned, graded and missing trials of each arm."""

    @property
    def experiment(self) -> str:
        return str(self.about["experiment"])

    @property
    def model(self) -> str:
        return str(self.about["model"])


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm with everything that is counted of it."""

    experiment: str
    name: str
    rows: pd.DataFrame
    planned: int
    missing: int
    estimates: Mapping[str, Estimate]
    differences: Mapping[str, Difference]
    """To the baseline; empty for the baseline itself and where none was run."""

    @property
    def n(self) -> int:
        return len(self.rows)


def recorded(store: Store, params: Params, experiment: str, model: str, judge: str) -> Recorded:
    """From the store: the experiment's own arms and those it is held against."""
    beside = BESIDE.get(experiment, [])
    also = "".join(" or (experiment = ? and arm = ?)" for _ in beside)
    where = f"model = ? and scale = ? and judge = ? and (experiment = ?{also})"
    asked = [model, params.scale, judge, experiment, *(part for pair in beside for part in pair)]
    rows = store.sql(f"select {', '.join(COLUMNS)} from outcomes where {where}", asked).to_pandas()
    counts = store.sql(f"select experiment, arm, n_planned, n_graded, n_missing from summary where {where}", asked).to_pylist()
    if not (rows["experiment"] == experiment).any():
        raise DataError(f"{experiment} has no graded trials of {model!r} at scale {params.scale!r} by {judge!r}; run it first")
    protocol = params.protocol
    about = {
        "experiment": experiment,
        "model": model,
        "scale": params.scale,
        "judge": judge,
        "arms": sorted(counts, key=lambda row: (row["experiment"], row["arm"])),
        "exclude_degraded": protocol.exclude_degraded,
        "confidence": protocol.confidence,
        "bootstrap_draws": protocol.bootstrap_draws,
        "seed": params.seed,
        "levels": params.exp02.levels,
        "range_std": params.exp02.range_std,
    }
    return Recorded(rows.sort_values(ORDER, kind="stable", ignore_index=True), about)


def place(root: Path, params: Params, experiment: str, model: str, judge: str) -> Path:
    """Where the export lies: `<root>/export/exp01/tiny`, with `-smoke` and `@judge` where they are not the usual ones."""
    scale = "" if params.scale == "full" else f"-{params.scale}"
    by = "" if judge == params.model(model).judge else f"@{judge}"
    return root / "export" / experiment / f"{model}{scale}{by}"


def write(found: Recorded, folder: Path) -> list[Path]:
    """The two files; the same results give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pandas(found.outcomes[list(COLUMNS)], preserve_index=False).replace_schema_metadata(None)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    files = {
        "outcomes.parquet": sink.getvalue(),
        "about.json": (json.dumps(found.about, indent=1, sort_keys=True) + "\n").encode(),
    }
    for name, data in files.items():
        _replace(folder / name, data)
    return [folder / name for name in files]


def read(folder: Path) -> Recorded:
    files = folder / "outcomes.parquet", folder / "about.json"
    for file in files:
        if not file.is_file():
            raise DataError(f"no {file.name} in {str(folder)!r}; run the experiment or `dvc repro` first")
    return Recorded(pq.read_table(files[0]).to_pandas(), json.loads(files[1].read_text()))


def stamp(found: Recorded, file: Path) -> None:
    """A small file that changes when, and only when, what is recorded changes: what DVC's export stages depend on."""
    table = pa.Table.from_pandas(found.outcomes[list(COLUMNS)], preserve_index=False).replace_schema_metadata(None)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    digest = hashlib.sha256(sink.getvalue() + json.dumps(found.about, sort_keys=True).encode()).hexdigest()
    file.parent.mkdir(parents=True, exist_ok=True)
    _replace(file, (json.dumps({"rows": len(found.outcomes), "sha256": digest}) + "\n").encode())


def _replace(file: Path, data: bytes) -> None:
    """The file holds the data; one that does already is not touched."""
    if file.is_file() and file.read_bytes() == data:
        return
    new = file.with_name(file.name + ".new")
    new.write_bytes(data)
    new.replace(file)


def arms(found: Recorded) -> list[Arm]:
    """Counted, baseline first, then by experiment and the number in the name."""
    about = found.about
    frame = metrics.outcomes_frame(found.outcomes, exclude_degraded=about["exclude_degraded"])
    settings = {"draws": about["bootstrap_draws"], "confidence": about["confidence"], "seed": about["seed"]}
    groups = {(str(e), str(a)): rows for (e, a), rows in frame.groupby(["experiment", "arm"], observed=True)}
    counts = {(row["experiment"], row["arm"]): row for row in about["arms"]}
    base = groups.get(BASELINE)
    out = []
    for key in sorted(groups, key=lambda key: (key != BASELINE, key[0], natural(key[1]))):
        rows, count = groups[key], counts[key]
        held = metrics.differences(rows, base, **settings) if base is not None and key != BASELINE else {}
        estimates = metrics.estimates(rows, **settings)
        out.append(Arm(*key, rows, int(count["n_planned"]), int(count["n_missing"]), estimates, held))
    return out


def natural(arm: str) -> tuple[str, float]:
    """`relative-2` before `relative-10`."""
    name, _, number = arm.rpartition("-")
    try:
        return name, float(number)
    except ValueError:
        return arm, 0.0


HEADER = (
    "experiment", "arm", "metric", "value", "k", "n", "planned", "missing", "wilson_low", "wilson_high", "bootstrap_low",
    "bootstrap_high", "latents", "difference", "difference_low", "difference_high", "pairs", "gained", "lost", "mcnemar_p", "d_paired",
)  # fmt: skip


def numbers(found: list[Arm]) -> str:
    """One line an arm and metric, as CSV; empty where there is no number."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(HEADER)
    for arm in found:
        for name, e in arm.estimates.items():
            d = arm.differences.get(name)
            row = [arm.experiment, arm.name, name, e.value, e.k, e.n, arm.planned, arm.missing, *(e.wilson or ("", ""))]
            row += [*(e.bootstrap or ("", "")), e.clusters]
            row += [d.value, *(d.bootstrap or ("", "")), d.n, *(d.mcnemar or ("", "", "")), d.d_paired] if d else [""] * 8
            out.writerow([_short(cell) for cell in row])
    return text.getvalue()


def headline(found: list[Arm]) -> dict[str, dict[str, float | None]]:
    """Every metric of every arm, without intervals: what `dvc metrics diff` compares."""
    return {
        f"{arm.experiment}/{arm.name}": {
            name: None if e.value is None else float(f"{e.value:.6g}") for name, e in arm.estimates.items()
        }
        | {"n": float(arm.n), "missing": float(arm.missing)}
        for arm in found
    }


def _short(cell: object) -> object:
    return "" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else cell
