"""All of the paper in one folder: one list of numbers behind macros, Markdown and JSON, and texts that cannot hold an unexpanded macro."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from authors_folder import LLAMA70, AuthorsFolder

from esr.__main__ import main
from esr.errors import DataError
from esr.show import counted, detector_table, latex
from esr.show import recorded as export
from esr.show.manuscript import expand, folder, names, written
from esr.show.manuscript.numbers import Number
from esr.show.manuscript.tables import tex as table
from esr.store import Store

HOME = Path(__file__).resolve().parent.parent
SOME = ("exp01/tiny", "exp03/tiny", "exp07/tiny", "exp08/tiny", "exp08/tiny-plain")
RATE = "esrExpZeroOneTinyBaselineMultiAttemptRate"


def copied(root: Path, some: tuple[str, ...] = SOME) -> Path:
    """A store that holds these recorded exports and nothing else."""
    for name in some:
        shutil.copytree(HOME / "store" / "export" / name, root / "export" / name)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = copied(tmp_path_factory.mktemp("store"))
    folder.write(made)
    return made


@pytest.fixture(scope="module")
def paper(root):
    return root / folder.NAME


def files(of: Path) -> dict[str, bytes]:
    return {path.relative_to(of).as_posix(): path.read_bytes() for path in sorted(of.rglob("*")) if path.is_file()}


def macros(of: Path) -> dict[str, str]:
    """numbers.tex read back, by a tokenizer that knows groups and nothing of how the file was written."""
    found = {}
    text = re.sub(r"(?<!\\)%.*", "", (of / "numbers.tex").read_text(encoding="utf-8"))
    at = 0
    while (start := text.find("\\newcommand{\\", at)) >= 0:
        name = text[start + 13 : (end := text.index("}", start))]
        assert name.isascii(), name
        assert name.isalpha(), name
        assert text[end + 1] == "{"
        depth, at = 1, end + 2
        while depth:
            depth += {"{": 1, "}": -1}.get(text[at], 0) if text[at - 1] != "\\" else 0
            at += 1
        assert name not in found
        found[name] = text[end + 2 : at - 1]
    return found


def test_the_same_exports_give_the_same_bytes(root, paper, tmp_path):
    again = copied(tmp_path, tuple(reversed(SOME)))
    folder.write(again)
    assert files(again / folder.NAME) == files(paper)
    before = {path: path.stat().st_mtime_ns for path in paper.rglob("*")}
    drawn = sorted((root / "figures").iterdir())
    for path in drawn:  # as DVC puts them in place
        path.touch()
    times = [path.stat().st_mtime_ns for path in drawn]
    folder.write(root)
    assert {path: path.stat().st_mtime_ns for path in paper.rglob("*")} == before
    assert [path.stat().st_mtime_ns for path in drawn] == times


def test_every_number_is_the_counted_one_in_all_three_forms(root, paper):
    told = json.loads((paper / "numbers.json").read_text())
    tex, text = macros(paper), (paper / "numbers.md").read_text()
    by = {one["macro"]: one for one in told["numbers"]}
    for arm in counted.arms(export.read(root / "export/exp08/tiny")):
        if arm.arm.experiment != "exp08":
            continue
        for name, e in arm.estimates.items():
            macro = names.name(("exp08", "tiny", arm.name, name))
            one = by[macro]
            by_100 = 100 if one["unit"] else 1
            assert one["value"] == (None if e.value is None else pytest.approx(by_100 * e.value))
            assert one["n"] == e.n
            if e.value is not None:
                assert tex[macro] == f"{by_100 * e.value:.1f}"
                assert f"`\\{macro}`" in text
            assert (macro + "Interval" in tex) is (e.interval is not None and e.value is not None)
    assert set(tex) == set(told["macros"])
    assert tex["esrExpZeroEightTinyNoSteeringMultiAttemptRateN"] == "1{,}152"
    assert re.fullmatch(r"18\.6\\,\\% \[13\.0, 25\.8\], \\ensuremath\{n\} = 1\{,\}152", tex[RATE + "Whole"])
    assert tex["esrExpZeroEightTinyNoSteeringMultiAttemptRateDifference"] == r"\ensuremath{-}18.6"


def test_agreement_of_judges_has_macros_too(paper):
    found = {name: text for name, text in macros(paper).items() if name.startswith("esrExpZeroSeven")}
    kappa = "esrExpZeroSevenTinyMeasuresKappaLexicalRestartDetector"
    assert {kappa, kappa + "Interval", kappa + "N"} <= set(found)


def test_the_detectors_stand_in_the_folder_as_on_a_terminal_and_as_numbers(root, paper):
    exported = export.read(root / "export/exp03/tiny").tables["detectors"]
    assert len(exported)
    page, table = (paper / "index.html").read_text(), (paper / "tables/exp03-tiny-detectors.md").read_text()
    told = {one["macro"]: one for one in json.loads((paper / "numbers.json").read_text())["numbers"]}
    found = macros(paper)
    for row in exported.to_dict("records"):
        line = detector_table.markdown([row]).splitlines()[-1]
        assert line in table
        assert all(f"<td>{cell}</td>" in page for cell in detector_table.cells([row])[1][2:])
        for name in detector_table.NUMBERS:
            macro = names.name(("exp03", "tiny", "detectors", str(row["latent"]), name))
            by = 100 if name.endswith("active") else 1
            assert told[macro]["value"] == pytest.approx(by * row[name])
            assert told[macro]["n"] == row[f"{name.split('_')[0]}_pairs"] > 0
            assert float(found[macro]) == pytest.approx(by * row[name], rel=0.01)
            assert macro + "Interval" not in found
            assert "chosen by this number" in told[macro]["why"]
    assert f"{row['matched_pairs']:,} matched pairs, {row['mismatched_pairs']:,} mismatched" in page
    assert r"\begin{tabular}{rlrrrr}" in (paper / "tables/exp03-tiny-detectors.tex").read_text()
    assert "mismatched_active" in (paper / "tables/exp03-tiny-detectors.csv").read_text().splitlines()[0]


@pytest.mark.parametrize(("rows", "why"), [(0, "none is recorded"), (None, "`python -m flows exp03 tiny` exports it")])
def test_detectors_that_an_export_lacks_are_listed(tmp_path, rows, why):
    made = copied(tmp_path, ("exp03/tiny",))
    found = export.read(made / "export/exp03/tiny")
    tables = {**found.tables, "detectors": found.tables["detectors"][:0]}
    if rows is None:
        del tables["detectors"]
    export.write(export.Recorded(tables, {**found.about, "tables": sorted(tables)}), made / "export/exp03/tiny")
    folder.write(made)
    told = json.loads((made / "paper/numbers.json").read_text())
    assert why in told["left_out"]["detectors of exp03 on tiny"]
    assert not any("detectors" in name for name in told["files"])
    assert not any("MismatchedMean" in name for name in told["macros"])
    assert "detectors of exp03 on tiny" in (made / "paper/index.html").read_text()


def test_a_number_changed_in_the_results_changes_in_all_three(tmp_path, paper):
    made = copied(tmp_path, ("exp01/tiny",))
    found = export.read(made / "export/exp01/tiny")
    rows = found.outcomes
    rows.loc[rows.index[~rows["multi"]][:100], ["multi", "n_attempts"]] = [True, 2]
    export.write(export.Recorded({"outcomes": rows}, found.about), made / "export/exp01/tiny")
    folder.write(made)
    k = int(rows["multi"].sum())
    wanted = f"{100 * k / len(rows):.1f}"
    now = made / folder.NAME
    assert macros(now)[RATE] == wanted != macros(paper)[RATE]
    assert json.loads((now / "numbers.json").read_text())["macros"][RATE] == wanted
    assert re.search(rf"\| {re.escape(wanted)} % \|.*`\\{RATE}`", (now / "numbers.md").read_text())
    assert f"{wanted} %" in (now / "index.html").read_text()


def test_what_was_not_run_is_listed_and_has_no_macro(paper):
    told = json.loads((paper / "numbers.json").read_text())
    assert told["left_out"]["exp04 on tiny"] == told["left_out"]["every experiment on 70b"] == "not run"
    page = (paper / "index.html").read_text()
    assert "exp04 on tiny-plain, tiny: not run" in page
    assert not any("ExpZeroFour" in name for name in macros(paper))


def test_what_is_made_up_or_small_is_no_result_and_is_listed(tmp_path):
    made = copied(tmp_path, ("exp01/tiny",))
    for name, more in (("tiny+fake", {"engine": "fake"}), ("tiny-smoke", {"scale": "smoke"})):
        other = made / "export" / "exp01" / name
        shutil.copytree(made / "export/exp01/tiny", other)
        about = json.loads((other / "about.json").read_text())
        (other / "about.json").write_text(json.dumps(about | more))
    folder.write(made)
    told = json.loads((made / "paper" / "numbers.json").read_text())
    assert {"exp01 on tiny+fake", "exp01 on tiny-smoke"} <= set(told["left_out"])
    assert not any("fake" in name or "smoke" in name for name in told["files"])


def test_the_page_shows_every_figure_with_what_made_it_and_asks_no_other_host(paper):
    page = (paper / "index.html").read_text()
    shown = re.findall(r'<img src="([^"]+)"', page)
    assert sorted(shown) == sorted(name for name in files(paper) if name.endswith(".png"))
    assert "figures/exp08-models.png" in shown
    for link in re.findall(r"""(?:href|src)=["']([^"'#][^"']*)""", page):
        assert (paper / link).is_file(), link
    captions = re.findall(r"<figcaption>.*?</figcaption>", page, re.S)
    assert len(captions) == len(shown)
    assert all("n: tiny" in one and "python -m esr.show.figures draw" in one for one in captions)
    assert "python -m flows exp08 tiny-plain" in page
    assert any("n: tiny: 1,000 replies" in one for one in captions)
    assert any("n: tiny: baseline 1,152, no-steering 1,152" in one for one in captions)
    assert not re.search(r"https?://", page)


def test_what_an_earlier_writing_left_goes_and_a_strangers_folder_stays(tmp_path):
    made = copied(tmp_path / "store", ("exp01/tiny", "exp08/tiny"))
    folder.write(made)
    (made / "paper" / "mine.txt").write_text("a note")
    shutil.rmtree(made / "export" / "exp08")
    folder.write(made)
    left = set(files(made / "paper"))
    assert "mine.txt" in left
    assert "figures/exp01-tiny.png" in left
    assert not any("exp08" in name for name in left)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="holds files"):
        folder.write(made, tmp_path / "other")


def number(*place: str, value: float | None = 1.0, why: str = "") -> Number:
    return Number(place, value, None, None, 5, ".1f", " %", "", why)


@pytest.mark.parametrize(("one", "other"), [("told", "Told"), ("a-b", "a_b"), ("dont", "dOnt")])
def test_two_names_that_differ_by_case_alone_are_an_error_that_names_both(one, other):
    with pytest.raises(DataError, match="differ at most by case") as error:
        written.macros([number("exp01", "tiny", one), number("exp01", "tiny", other)])
    assert one in str(error.value)
    assert other in str(error.value)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [("exp01", "ExpZeroOne"), ("relative-0.75", "RelativeZeroPointSevenFive"), ("absolute--1.5", "AbsoluteMinusOnePointFive"),
     ("tiny@haiku-4.5", "TinyAtHaikuFourPointFive"), ("tiny+hf", "TinyPlusHf"), ("selfMonitor", "SelfMonitor"), ("own − none", "OwnMinusNone"),
     ("café", "Cafe"), ("lexical | restart detector", "LexicalRestartDetector"), ("β", "GreekSmallLetterBeta")],
)  # fmt: skip
def test_a_name_is_made_of_letters(text, spelled):
    assert names.spelled(text) == spelled
    assert re.fullmatch("[A-Za-z]+", spelled)


def test_a_number_that_rests_on_nothing_is_left_out_with_its_reason():
    some = [number("exp11", "tiny", "on-40", value=None, why="only 2 latents")]
    assert [one.name for one in written.macros(some)] == ["esrExpOneOneTinyOnFourZeroN"]
    assert written.undefined(some)["esrExpOneOneTinyOnFourZero"] == "only 2 latents"


EXPANDED = [
    (rf"Steered, \{RATE}{{}}\,\% restart.", "Steered, 18.6\u202f% restart."),
    (rf"\emph{{Some}} $\{RATE}$ of 100 --- see~below % and a remark", "Some 18.6 of 100 — see\u00a0below "),
    (rf"(\{RATE}Whole)", "(18.6 % [13.0, 25.8], n = 1,152)"),
    (r"50\% of a\_b \& c, ``quoted''", "50% of a_b & c, “quoted”"),
]


@pytest.mark.parametrize(("text", "plain"), EXPANDED)
def test_a_text_is_expanded_to_plain_text(paper, text, plain):
    assert expand.expanded(text, expand.read(paper)) == plain


REFUSED = [
    (r"one line" "\n" r"a rate of \esrExpZeroOneTinyBaselineMultiAttempt.", "line 2: .*is not defined; the nearest are"),
    (r"\esrExpZeroFourTinyBaseEsrRate", "exp04 on tiny: not run"),
    (rf"\{RATE.replace('Rate', 'rate')}", "tells capitals"),
    (r"\esrExpZeroEightTinyPlainNoSteeringImprovementRate", "cannot be printed: no trials"),
    (r"as we said \cite{us}", r"\\cite is no macro"),
    (r"\llamaSeventyEsr", "is no macro"),
    ("a lone \\ here\\", "a backslash is left"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED)
def test_a_plain_text_cannot_hold_what_is_not_expanded(paper, tmp_path, capsys, text, says):
    file = tmp_path / "abstract.tex"
    file.write_text(text)
    assert main(["paper", "expand", str(file), "--numbers", str(paper), "--to", str(tmp_path / "out.txt")]) == 2
    error = capsys.readouterr().err
    assert re.search(says, error), error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.txt").exists()


def test_a_latex_text_is_checked_for_our_macros_alone(paper, tmp_path, capsys):
    file = tmp_path / "main.tex"
    file.write_text(rf"\section{{Results}} \{RATE} \cite{{us}} % \esrNothing" "\n")
    assert main(["paper", "check", str(file), "--numbers", str(paper)]) == 0
    assert "1 numbers" in capsys.readouterr().out
    file.write_text("\n\\esrNothing")
    assert main(["paper", "check", str(file), "--numbers", str(paper)]) == 2
    assert "line 2: \\esrNothing is not defined" in capsys.readouterr().err


NASTY = r"50 % of #1 & a_b {c} ~d^e \f $g$ <h> |i| 1,152 −3 – ×"


@pytest.mark.skipif(
    not shutil.which("pdflatex"), reason="pdflatex is not installed; the tokenizer of the other tests reads the macros"
)
def test_latex_takes_every_macro_and_table_and_what_labels_may_hold(paper, tmp_path):
    tables = [path.read_text() for path in sorted((paper / "tables").glob("*.tex"))]
    every = "\n".join(rf"\typeout{{<\{name}>}}\{name}{{}} $\{name}$;" for name in macros(paper))
    nasty = table([("arm", "n"), (NASTY, "1,152")])
    text = rf"""\documentclass{{article}}\input{{{paper / "numbers.tex"}}}
\newcommand{{\toprule}}{{\hline}}\newcommand{{\midrule}}{{\hline}}\newcommand{{\bottomrule}}{{\hline}}
\begin{{document}}{every}
{latex.escaped(NASTY)}

{chr(10).join([*tables, nasty])}\end{{document}}"""
    (tmp_path / "all.tex").write_text(text)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 20_000


def test_what_labels_may_hold_leaves_no_mark_with_a_meaning():
    bare = re.sub(r"\\(?:ensuremath\{[^}]*\}|text[a-z]+\{\}|[&%$#_{}])", "", latex.escaped(NASTY))
    assert not re.search(r"[&%$#_{}^~\\]", bare), bare


def test_imported_results_have_figures_and_macros(tmp_path, monkeypatch, capsys):
    authors = AuthorsFolder(tmp_path / "data")
    authors.results(f"experiment_results_{LLAMA70}_{authors.when()}.json", LLAMA70, ("exp01", "70b", "baseline"), n=20)
    authors.results(f"experiment_results_Mystery-7B_{authors.when()}.json", "Mystery-7B", ("exp01", "Mystery-7B", "baseline"))
    ablated = f"experiment_results_{LLAMA70}_{authors.when()}_with_ablation.json"
    authors.results(ablated, LLAMA70, ("exp03", "70b", "detectors"), n=20, ablated_latents=list(range(25)))
    seen = {
        "shuffled_mean_activation": 0.5,
        "normal_mean_activation": 0.0,
        "shuffled_active_frequency": 0.9,
        "normal_active_frequency": 0.0,
    }
    told = {"model_name": LLAMA70, "num_prompts": 20, "off_topic_detectors": [17481, 9168], "detector_stats": {"17481": seen}}
    (tmp_path / "data" / f"off_topic_detectors_{LLAMA70}.json").write_text(json.dumps(told))
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    assert main(["import-reference", str(tmp_path / "data")]) == 0
    assert main(["paper", "draw"]) == 0
    made = tmp_path / "store" / "paper"
    rows = {row["model"]: row for row in Store().sql("select * from summary where experiment = 'exp01'").to_pylist()}
    found = macros(made)
    for model, row in rows.items():
        title = model if model == "70b" else f"{model}@haiku-4.5"
        assert found[names.name(("exp01", title, "baseline", "esr_rate"))] == f"{100 * row['esr_rate']:.1f}"
    assert "figures/exp01-Mystery-7B@haiku-4.5.png" in files(made)
    assert "import-reference" in (made / "index.html").read_text()
    assert "3 figures" in capsys.readouterr().out
    share = "esrExpZeroThreeSevenZeroBDetectorsOneSevenFourEightOneMismatchedActive"
    assert found[share + "Whole"] == r"90.0\,\%, \ensuremath{n} = 20"
    assert share.replace("OneSevenFourEightOne", "NineOneSixEight") not in found
    assert "| 9168 |  | – | – | – | – |" in (made / "tables/exp03-70b-detectors.md").read_text()
    assert not (tmp_path / "store" / "export").exists()
