"""Which lines of which pages are played, which otherwise than printed and why, and what each promises beside ending with 0.

A line that is in none of the tables is played as printed and has to end with 0. What stands within a sentence or indented is not played.
"""

import io
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pyarrow.parquet as pq
import yaml
from authors_folder import AuthorsFolder
from player import Clone, Line, Played, git, lines

from esr.params import HOME
from esr.store import Store

README = "README.md"
PAGES = (README, "docs/deployments.md", "docs/models.md", "docs/experiments.md", "docs/audit.md", "docs/recovery.md")
"""Played from top to bottom, in this order, in one clone."""
NO_LINES = {
    "docs/activations.md": "tests/test_activations.py",  # experiments 6 and 9 run in tests/test_flows.py
    "docs/engine.md": "tests/test_engine_docs.py",  # its blocks want the weights of published models
    "docs/finetuning.md": "tests/test_finetune.py",  # all checkpoints take hours; there one is trained
    "docs/inspect.md": "tests/test_inspect_log.py",
    "docs/paper.md": "tests/test_manuscript.py",  # its texts are the reader's
    "docs/store.md": "tests/test_history.py",
    "docs/view.md": "tests/test_view_pages.py",
}
"""Pages with such blocks that are not played here, and where they are."""


@dataclass(frozen=True)
class Otherwise:
    """A line that is not played as printed, or should not end with 0 here."""

    page: str
    command: str
    why: str
    typed: Callable[[Clone], str] | None = None
    """What is typed in its place; None: as printed."""
    code: int = 0
    changes: tuple[str, ...] = ()
    """Tracked files that it may change."""
    elsewhere: str = ""
    """The test that plays it; it is not played here."""
    left_out: bool = False
    """Nothing plays it."""


def authors(clone: Clone) -> str:
    AuthorsFolder(clone.root / "authors").build()
    return f".venv/bin/python -m esr import-reference {clone.root / 'authors'}"


def labels(clone: Clone) -> str:
    file = clone.root / "labels.csv"
    file.write_text("feature,description\n7,castles\n")
    return f"python -m esr labels import {file} --for 8b"


OTHERWISE = (
    Otherwise(README, "make test", "it would play itself", lambda _: "make -n test"),
    Otherwise(README, ".venv/bin/python -m flows exp01 8b", "labels, weights, a GPU and a key are not here", code=2),
    Otherwise(README, ".venv/bin/python -m esr doctor 70b", "the same; it says so with its exit code", code=1),
    Otherwise(README, ".venv/bin/python -m esr import-reference DIR", "DIR is the reader's; here a synthetic folder", authors),
    Otherwise(README, "make paper", "dvc.lock notes the code that drew a figure", changes=("dvc.lock",)),
    Otherwise(README, ".venv/bin/dvc repro", "dvc.lock notes the code that drew a figure", changes=("dvc.lock",)),
    Otherwise("docs/deployments.md", ".venv/bin/python -m deployments up --gpus 0 1", "two GPUs", left_out=True),
    Otherwise(
        "docs/deployments.md", ".venv/bin/python -m flows exp01 70b --workers 4", "four GPUs", elsewhere="tests/test_fleet.py"
    ),
    Otherwise("docs/deployments.md", ".venv/bin/prefect deployment run exp01/8b", "a GPU", left_out=True),
    Otherwise(
        "docs/deployments.md", "export ESR_STORE=s3://bucket/prefix", "the reader's bucket", elsewhere="tests/test_remote_runs.py"
    ),
    Otherwise(
        "docs/deployments.md", ".venv/bin/python -m flows exp01 tiny", "in that bucket", elsewhere="tests/test_remote_runs.py"
    ),
    Otherwise(
        "docs/deployments.md", ".venv/bin/python -m esr sql 'from summary'", "from there", elsewhere="tests/test_remote_runs.py"
    ),
    Otherwise("docs/models.md", "python -m esr doctor 70b", "labels, weights, a GPU and a key are not here", code=1),
    Otherwise(
        README,
        "make finetune && .venv/bin/dvc repro checkpoints/dvc.yaml",
        "hours; one is trained",
        elsewhere="tests/test_finetune.py",
    ),
    Otherwise(
        "docs/models.md",
        "python -m esr labels make tiny-plain --texts FILE",
        "FILE is the reader's",
        elsewhere="tests/test_labels.py",
    ),
    Otherwise("docs/models.md", "python -m esr labels fetch gemma-9b", "the network", elsewhere="tests/test_labels.py"),
    Otherwise("docs/models.md", "python -m esr labels import FILE --for 8b", "FILE is the reader's; here of one label", labels),
    Otherwise(
        "docs/models.md",
        "python -m esr.params new-model esr/organism/data/tiny-plain --name mine --add",
        "it is to add a block",
        changes=("params.yaml",),
    ),
    Otherwise(
        "docs/audit.md",
        "python -m esr audit read audit-exp01-tiny-SHEET.csv --author ada",
        "SHEET is the sheet's own hash",
        lambda _: "python -m esr audit read audit-exp01-tiny-*.csv --author ada",
    ),
    Otherwise("docs/recovery.md", "python -m esr recovery exp01/70b --judge haiku-4.5", "a key is not here", code=2),
    Otherwise(
        "docs/experiments.md", '"""Experiment 77: do the positions matter?"""', "a file", elsewhere="tests/test_experiment.py"
    ),
    Otherwise(
        "docs/experiments.md", "python -m flows exp77 tiny --scale smoke", "needs that file", elsewhere="tests/test_experiment.py"
    ),
)


def otherwise(line: Line) -> Otherwise | None:
    return next((one for one in OTHERWISE if (one.page, one.command) == (line.page, line.command)), None)


def recorded_interval(says: str) -> tuple[float, float]:
    """Of the README's first table, in [0, 1]."""
    row = next(text for text in (HOME / README).read_text(encoding="utf-8").splitlines() if text.startswith(f"| {says} |"))
    low, high = re.findall(r"\[([\d.]+), ([\d.]+)\]", row.split("|")[3])[0]
    return float(low) / 100, float(high) / 100


def rates(clone: Clone, experiment: str, arm: str, scale: str = "full") -> dict[str, float]:
    asked = "select * from summary where experiment = ? and model = 'tiny' and arm = ? and scale = ?"
    found: dict[str, float] = Store(clone.tree / "store").sql(asked, [experiment, arm, scale]).to_pylist()[0]
    return found


def a_run(done: Played, clone: Clone, *arms: str, figures: tuple[str, ...]) -> None:
    """A plan before, a table after, and figures."""
    assert done.out.index("plan: ") < done.out.index(arms[0])
    rows = done.out.splitlines()
    for arm in arms:
        assert any(row.split()[0:1] == [arm] for row in rows), arm
    for figure in figures:
        assert (clone.tree / "store" / "figures" / figure).stat().st_size > 10_000


def demo(done: Played, clone: Clone) -> None:
    a_run(done, clone, "exp01/baseline", "exp08/no-steering", figures=("exp01-tiny.png", "exp08-tiny.png"))
    steered, quiet = rates(clone, "exp01", "baseline"), rates(clone, "exp08", "no-steering")
    for found, name, says in (
        (steered, "multi_attempt_rate", "steered: replies with a second attempt"),
        (steered, "esr_rate", "steered: corrected (ESR)"),
        (quiet, "multi_attempt_rate", "not steered: second attempt"),
    ):
        low, high = recorded_interval(says)
        assert low <= found[name] <= high, says
        assert found["n_missing"] == 0


def says(*what: str) -> Callable[[Played, Clone], None]:
    def check(done: Played, _clone: Clone) -> None:
        for one in what:
            assert one in done.out, f"{one!r} is not said"

    return check


def one_sentence(done: Played, _clone: Clone) -> None:
    """What is missing and what lists it, and nothing else on the way of errors."""
    assert done.err.count("\n") == 1
    assert done.last.startswith("error: ")
    assert "labels" in done.last
    assert "python -m esr doctor 8b" in done.last


def three_replies(done: Played, _clone: Clone) -> None:
    assert "(3 rows)" in done.out or done.out.count("\n") >= 3


def figures_again(done: Played, clone: Clone) -> None:
    """Those of every recorded experiment, and the numbers in them to the byte."""
    drawn = {path.name for path in (clone.tree / "store" / "figures").glob("*.png")}
    assert {f"exp{n:02}-tiny.png" for n in (1, 2, 3, 5, 8, 10)} <= drawn
    before = locked(git(clone.tree, "show", "HEAD:dvc.lock"))
    after = locked((clone.tree / "dvc.lock").read_text(encoding="utf-8"))
    anew = {Path(file).parts[2] for file in drawn_anew(clone) if file.startswith("store/export/")}
    other = [file for file, md5 in before.items() if after.get(file) != md5 and Path(file).name[:5] not in anew]
    assert not other, "other numbers than when dvc.lock was written: where that is meant, `dvc repro` and commit it"


def locked(lock: str) -> dict[str, str]:
    """The hash of every table of numbers that a stage of dvc.yaml leaves; dvc.lock may also hold stages that are no more."""
    names = set(yaml.safe_load((HOME / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
    stages = [stage for name, stage in yaml.safe_load(lock)["stages"].items() if name.split("@")[0] in names]
    return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", []) if out["path"].endswith(".csv")}


def imported(_done: Played, clone: Clone) -> None:
    rows = Store(clone.tree / "store").sql("select distinct model from summary where judge = 'haiku-4.5'")
    assert "70b" in rows["model"].to_pylist()


def pages(done: Played, _clone: Clone) -> None:
    address = re.findall(r"pages: (\S+)", done.out)[0]
    with urlopen(address, timeout=10) as page:
        assert page.status == 200


def own_study(done: Played, clone: Clone) -> None:
    """Both arms are graded, in pairs."""
    rows = Store(clone.tree / "store").sql("select arm, n_graded, n_missing from summary where experiment = 'mine'").to_pylist()
    assert len(rows) > 1
    assert all(row["n_graded"] and not row["n_missing"] for row in rows)
    assert all(row["arm"] in done.out and str(row["n_graded"]) in done.out for row in rows)
    paired = (
        Store(clone.tree / "store").sql("select arm, count(*) as n from pairs where experiment = 'mine' group by arm").to_pylist()
    )
    assert [one["n"] for one in paired] == [rows[0]["n_graded"]] * (len(rows) - 1)


def added(_done: Played, clone: Clone) -> None:
    assert "\n  mine:" in (clone.tree / "params.yaml").read_text()


PYTHON = ".venv/bin/python"
WATCHED = "prefect deployment run exp05/tiny --param scale=smoke --watch"
PROMISES: dict[str, Callable[[Played, Clone], None]] = {
    "make demo": demo,
    "make setup": says(".venv is ready"),
    "make test": says("ruff check", "ruff format", "mypy", "lint-imports", "-m pytest"),
    f"{PYTHON} -m flows exp08 tiny": lambda done, clone: a_run(
        done, clone, "exp01/baseline", "exp08/no-steering", figures=("exp08-tiny.png",)
    ),
    f"{PYTHON} -m flows exp03 tiny --scale smoke": lambda done, clone: a_run(
        done, clone, "exp01/baseline", "exp03/detectors", figures=("exp03-tiny-smoke.png",)
    ),
    f"{PYTHON} -m flows exp01 8b": one_sentence,
    f"{PYTHON} -m esr sql 'from summary'": says("exp01", "exp03", "exp08", "smoke", "full"),
    f'{PYTHON} -m esr sql "select text from replies join outcomes using (trial_id) where corrected limit 3"': three_replies,
    f"{PYTHON} -m esr doctor": says("vllm", "ANTHROPIC_API_KEY", "tiny: runs here", "70b: lacks"),
    f"{PYTHON} -m esr doctor 70b": says("hf download", "labels fetch", "GPU", "ANTHROPIC_API_KEY"),
    f"{PYTHON} -m esr plan all --gpus 1 8 64": says("GPU h", "on  64 GPUs", "limited by", "without the judge's limit"),
    f"{PYTHON} -m esr plan exp01 70b": says("replies", "tokens", "calls", "$", " h at ", "not here", "doctor 70b"),
    "make paper": says("index.html", "figures", "macros"),
    ".venv/bin/dvc repro": figures_again,
    f"{PYTHON} -m esr import-reference DIR": imported,
    f"{PYTHON} -m esr --help": says("table", "runs", "show", "diff", "export", "share", "labels", "rejudge", "agreement"),
    f"{PYTHON} -m deployments up": pages,
    f"PREFECT_API_URL=http://127.0.0.1:4200/api .venv/bin/{WATCHED}": says("Completed"),
    f".venv/bin/{WATCHED}": says("Completed"),
    f"{PYTHON} -m deployments status": says("worker cpu: takes runs"),
    f"{PYTHON} -m deployments down": says("server: ended"),
    "python -m esr.params new-model esr/organism/data/tiny-plain --name mine": says("  mine:"),
    "python -m esr.params new-model esr/organism/data/tiny-plain --name mine --add": added,
}


def promise(line: Line) -> Callable[[Played, Clone], None] | None:
    return own_study if line.language == "python" and line.page == README else PROMISES.get(line.command)


RECORDED = ("exp01", "exp08")
"""Experiments that the README's lines run on `tiny` at full scale; their results stand in git."""


def drawn_anew(clone: Clone) -> set[str]:
    """Tracked results that are others than the recorded: on another processor a model may draw other tokens. Held against the recorded
    rows, so that a file that only looks different is no result."""
    found: set[str] = set()
    for name in RECORDED:
        file = f"store/export/{name}/tiny/outcomes.parquet"
        kept = subprocess.run(["git", "show", f"HEAD:{file}"], cwd=clone.tree, capture_output=True, check=True).stdout
        if not pq.read_table(io.BytesIO(kept)).equals(pq.read_table(clone.tree / file)):
            found |= {file, f"store/export/{name}/tiny/about.json", f"store/recorded/{name}-tiny.json", "dvc.lock"}
    return found


def dirt(clone: Clone) -> list[str]:
    """What git sees changed, but for results that were drawn anew."""
    changed = clone.dirt()
    known = drawn_anew(clone) if changed else set()
    return [row for row in changed if row.split()[-1] not in known]


def play(clone: Clone, line: Line) -> Played:
    """The line, and whether it did what is said of it."""
    how = otherwise(line)
    typed = how.typed(clone) if how and how.typed else None
    before = dirt(clone)
    done = clone.play(line, typed, activated=line.page != README)
    assert done.code == (how.code if how else 0), str(done)
    assert "Traceback" not in done.out + done.err, str(done)
    if kept := promise(line):
        try:
            kept(done, clone)
        except (AssertionError, LookupError, OSError, ValueError) as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n{done}") from error
    changed = [row for row in dirt(clone) if row not in before]
    assert {row.split()[-1] for row in changed} <= set(how.changes if how else ()), f"{line.text} changes {changed}"
    if changed:
        clone.restore()
    return done


def to_play() -> list[Line]:
    known = {(one.page, one.command) for one in OTHERWISE if one.elsewhere or one.left_out}
    return [line for page in PAGES for line in lines(page) if (line.page, line.command) not in known]


def stale() -> list[str]:
    """Entries of these tables that are of no line any more, or name a test that is not there."""
    every = {(line.page, line.command) for page in PAGES for line in lines(page)}
    found = [one.command for one in OTHERWISE if (one.page, one.command) not in every]
    found += [command for command in PROMISES if command not in {known for _, known in every}]
    return found + [
        name for name in [*NO_LINES.values(), *(o.elsewhere for o in OTHERWISE)] if name and not (HOME / name).is_file()
    ]


def unplayed() -> list[str]:
    """Pages with lines to type in that are in none of the tables."""
    every = [README, *(f"docs/{path.name}" for path in sorted((HOME / "docs").glob("*.md")))]
    return [page for page in every if lines(page) and page not in PAGES and page not in NO_LINES]
