"""python -m esr labels: what an SAE's latents stand for, fetched where it is public, imported from a file, or made here for any SAE."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from esr.params import Params, SaeParams
    from esr.study.study import Study


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
    made = some.add_parser(
        "make", help="by labelling of our own, for any SAE: from what its latents fire on, scored on held-out texts"
    )
    made.add_argument("of", metavar="model", help="a model of params.yaml")
    made.add_argument(
        "--texts", type=Path, metavar="FILE", help="your own: a text a line, or JSONL (text, and perhaps prompt and group)"
    )
    made.add_argument(
        "--subjects", type=Path, metavar="FILE", help="what the model is asked about, a subject a line (a shipped list)"
    )
    made.add_argument("--replies", type=int, default=3, metavar="N", help="of the model to every prompt (3)")
    made.add_argument("--by", default="local", metavar="JUDGE", help="a judge of params.yaml, or local, which needs no key (local)")
    made.add_argument("--latents", type=int, metavar="N", help="at most so many, drawn (all that fire often enough)")
    made.add_argument(
        "--max-cost", type=float, metavar="X", help="US dollars for the judge at most (params.yaml's judging.max_cost)"
    )
    made.add_argument(
        "--to", metavar="PATH", help="the file, in the store (the SAE's own place if that is free, else labels/SAE-LABELLER.csv)"
    )
    made.add_argument("--plan", action="store_true", help="say what it would take, and ask no judge")


def run(args: Namespace) -> int:
    from esr import params as parameters
    from esr.errors import ParamsError, SaeError

    if args.how == "make":
        return _make(args)
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
            f"them, make our own: `python -m esr labels make MODEL`, bring a file: `python -m esr labels import FILE --for {sae.name}`, or set "
            "its labels to null and do without"
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


def _make(args: Namespace) -> int:
    import logging

    from esr.labelling import made
    from esr.study.study import Study

    study = Study.of(args.of)
    path = _place(study, args)
    if args.max_cost is not None:
        judging = study.params.judging.model_copy(update={"max_cost": args.max_cost})
        study = replace(study, params=study.params.model_copy(update={"judging": judging}))
    wanted = made.Wanted(
        texts=args.texts, subjects=_subjects(args.subjects), replies=_positive(args.replies, "--replies"), by=args.by,
        latents=None if args.latents is None else _positive(args.latents, "--latents"),
    )  # fmt: skip
    logging.getLogger("esr.study.progress").setLevel(logging.INFO)
    try:
        found = made.make(study, wanted, lambda said: _say(f"{args.of}: {said}\n"), plan=args.plan)
    finally:
        study.close()
    if found is None:
        return 0
    beside, about = made.write(study.store.root / path, found), found.about
    sys.stdout.write(
        f"{about['labelled']:,} of {about['latents']:,} latents of {about['sae']} are labelled by {about['labeller']}"
        + (f", score {about['score_mean']:.2f} on held-out texts" if about["labelled"] else "")
        + f"; {study.store.root / path}, what it rests on in {beside.name}\n"
    )
    for reason, n in about["reasons"].items():
        sys.stdout.write(f"  {n:,} without: {reason}\n")
    if found.curable:
        sys.stdout.write("the judge did not answer for all of them; the same line goes on from here\n")
    if study.params.sae(study.spec.sae).labels != path:
        sys.stdout.write(f"in params.yaml, under saes.{about['sae']}:\n    labels: {path}\n")
    return 3 if found.curable else 0


def _place(study: "Study", args: Namespace) -> str:
    """Where the labels go, as params.yaml would name it: the SAE's own place unless labels lie there already."""
    from esr.errors import ParamsError
    from esr.sae.labels import labels_file

    sae = study.params.sae(study.spec.sae)
    path = args.to or (
        sae.labels if sae.labels and not labels_file(study.store.root, sae.labels).is_file() else f"labels/{sae.name}-{args.by}.csv"
    )
    if Path(path).suffix != ".csv":
        raise ParamsError(f"--to is {path!r} and labels are a CSV; a name such as labels/{sae.name}.csv would do")
    return str(path)


def _subjects(path: Path | None) -> list[str]:
    from esr.errors import DataError

    if path is None:
        return []
    if not path.is_file():
        raise DataError(f"no subjects at {str(path)!r}; a text file with a subject a line would do")
    found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not found:
        raise DataError(f"{path.name} holds no subject; a text file with a subject a line would do")
    return list(dict.fromkeys(found))


def _positive(n: int, option: str) -> int:
    from esr.errors import ParamsError

    if n < 1:
        raise ParamsError(f"{option} is {n} and must be at least 1")
    return n


def _say(said: str) -> None:
    sys.stderr.write(said)
    sys.stderr.flush()


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
