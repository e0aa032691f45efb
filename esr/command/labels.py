"""python -m esr labels: what an SAE's latents stand for, fetched where it is public or imported from a file."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from esr.params import Params, SaeParams


def arguments(parser: ArgumentParser) -> None:
    some = parser.add_subparsers(dest="how", metavar="how", required=True)
    fetch = some.add_parser("fetch", help="from Neuronpedia's public exports")
    fetch.add_argument("of", help="a model of params.yaml, or an SAE")
    fetch.add_argument("--from", dest="base", metavar="URL", help="another place that has the exports (Neuronpedia's bucket)")
    brought = some.add_parser("import", help="from a CSV, TSV, JSON or JSONL file")
    brought.add_argument("file", type=Path)
    brought.add_argument("--for", dest="of", required=True, help="a model of params.yaml, or an SAE")
    brought.add_argument("--index", help="the column of the latent's index")
    brought.add_argument("--label", help="the column of its label")


def run(args: Namespace) -> int:
    from esr import params as parameters
    from esr.errors import ParamsError, SaeError

    params = parameters.load()
    sae = sae_of(params, args.of)
    if sae.labels is None:
        raise ParamsError(f"saes.{sae.name}.labels is null; write there where they should lie, such as labels/{sae.name}.csv")
    found, told = _fetched(sae, args.base) if args.how == "fetch" else _imported(args)
    beyond = [index for index in found if not 0 <= index < sae.d_sae]
    if beyond:
        raise SaeError(f"latent {beyond[0]} is labelled and SAE {sae.name!r} has {sae.d_sae}; these are another SAE's labels")
    if not found:
        raise SaeError(f"no latent of SAE {sae.name!r} has a label there")
    from esr.sae.labels import write_labels

    path = parameters.store() / sae.labels
    write_labels(path, found)
    sys.stdout.write(f"{len(found):,} of {sae.d_sae:,} latents of {sae.name} are labelled {told}; {path}\n")
    return 0


def sae_of(params: "Params", name: str) -> "SaeParams":
    """The SAE of that name, or of the model of that name."""
    from esr.errors import ParamsError, one_of

    if name in params.saes:
        return params.saes[name]
    if name in params.models:
        return params.sae(params.models[name].sae)
    raise ParamsError(one_of("model or SAE", name, [*params.models, *params.saes], "params.yaml"))


def _fetched(sae: "SaeParams", base: str | None) -> tuple[Mapping[int, str], str]:
    from esr import params as parameters
    from esr.errors import SaeError
    from esr.sae import neuronpedia
    from esr.sae.registry import source

    where = source(sae)
    if where is None:
        raise SaeError(
            f"no public labels are known for SAE {sae.name!r}; write saes.{sae.name}.neuronpedia as model/source where Neuronpedia has "
            f"them, or bring a file: `python -m esr labels import FILE --for {sae.name}`, or set its labels to null and do without"
        )
    with _progress() as tell:
        into = parameters.store() / "labels" / "neuronpedia" / where
        files = neuronpedia.fetch(where, into, base=(base or neuronpedia.BASE).rstrip("/"), tell=tell)
    read = neuronpedia.read(files, d_sae=sae.d_sae)
    writers = ", ".join(f"{n:,} by {writer}" for writer, n in sorted(read.writers.items(), key=lambda item: -item[1]))
    return read.labels, f"from Neuronpedia's {where} ({writers})"


def _imported(args: Namespace) -> tuple[Mapping[int, str], str]:
    from esr.sae import foreign_labels

    return foreign_labels.read(args.file, index=args.index, label=args.label), f"from {args.file.name}"


@contextmanager
def _progress() -> "Iterator[Callable[[int, int], None]]":
    """A bar on a terminal, a last line elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("labels"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
