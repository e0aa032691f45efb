"""python -m esr export: an experiment's graded trials as one CSV or Parquet file."""

import io
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from esr.command.reading import existing


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("experiment", help="an experiment that has graded trials, such as exp01")
    parser.add_argument("model", help="a model of params.yaml, or the name under which results were imported")
    parser.add_argument("--to", required=True, type=Path, metavar="FILE", help="FILE.csv or FILE.parquet; replaced where it exists")
    parser.add_argument("--scale", default="full", help="full or smoke (full)")
    parser.add_argument("--judge", help="whose grades; every judge's when left out")
    parser.add_argument("--text", action="store_true", help="the replies too")


def run(args: Namespace) -> int:
    from pyarrow import csv, parquet

    from esr.errors import DataError

    if args.to.suffix not in (".csv", ".parquet"):
        raise DataError(f"a file is written as .csv or .parquet, and {args.to.name!r} is neither")
    text, join = (", r.text as reply", " left join replies r using (trial_id)") if args.text else ("", "")
    query = f"select o.*{text} from outcomes o{join} where o.experiment = ? and o.model = ? and o.scale = ?"
    asked = [args.experiment, args.model, args.scale]
    if args.judge:
        query, asked = f"{query} and o.judge = ?", [*asked, args.judge]
    table = existing().sql(f"{query} order by o.arm, o.judge, o.latent, o.question, o.seed, o.trial_id", asked)
    if not table.num_rows:
        raise DataError(
            f"{args.experiment} has no graded trials of {args.model!r} at scale {args.scale!r}"
            f'{f" by {args.judge!r}" if args.judge else ""}; `python -m esr sql "from summary"` shows what there is'
        )
    sink = io.BytesIO()
    if args.to.suffix == ".csv":
        at = table.schema.get_field_index("scores")  # a list; CSV has none
        joined = [" ".join(f"{score:g}" for score in scores) for scores in table["scores"].to_pylist()]
        csv.write_csv(table.set_column(at, "scores", [joined]), sink)
    else:
        parquet.write_table(table, sink, compression="zstd")
    new = args.to.with_name(f".{args.to.name}.new")
    new.write_bytes(sink.getvalue())
    new.replace(args.to)
    sys.stdout.write(f"{args.to}: {table.num_rows:,} trials, {table.num_columns} columns\n")
    return 0
