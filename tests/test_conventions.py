"""The promises of the house about its own files."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent
TRACKED = [
    HOME / name for name in subprocess.run(["git", "ls-files"], cwd=HOME, capture_output=True, text=True).stdout.split("\n") if name
]
PYTHON = [path for path in TRACKED if path.suffix == ".py" and path.is_file()]
OURS = [path for path in PYTHON if path.relative_to(HOME).parts[0] in ("esr", "tasks", "flows")]
TEXT = [
    path
    for path in TRACKED
    if path.is_file() and (path.suffix in (".py", ".md", ".yaml", ".toml", ".txt", ".sql", ".json", ".cfg") or path.suffix == "")
]
PRINTERS = {"esr/__main__.py", "esr/engine/__main__.py", "esr/organism/__main__.py", "flows/__main__.py"}
"""The command lines: what may print."""


def name(path: Path) -> str:
    return path.relative_to(HOME).as_posix()


pytestmark = pytest.mark.skipif(not TRACKED, reason="not a git checkout")


def test_files_stay_short():
    long = {name(p): n for p in OURS if (n := len(p.read_text().splitlines())) > 400}
    assert not long, "over 400 lines: split by noun"


def test_every_module_opens_with_one_line_that_says_what_it_is():
    bare = []
    for path in PYTHON:
        doc = ast.get_docstring(ast.parse(path.read_text()))
        if not doc and path.read_text().strip():
            bare.append(name(path))
        elif doc and not re.search(r"[.:?;)]$", doc.splitlines()[0]):
            bare.append(f"{name(path)}: first line {doc.splitlines()[0]!r} is no sentence")
    assert not bare


def test_the_library_does_not_print():
    found = []
    for path in OURS:
        if name(path) in PRINTERS:
            continue
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        found += [f"{name(path)}:{c.lineno}" for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
    assert not found


def test_every_silenced_check_gives_its_reason():
    silent = re.compile(r"#\s*(type: ignore(\[[\w, -]+\])?|noqa(: ?[\w, ]+)?)\s*$")
    found = [f"{name(p)}:{i}" for p in PYTHON for i, line in enumerate(p.read_text().splitlines(), 1) if silent.search(line)]
    assert not found


UNWANTED = {
    "a machine's path": re.compile(r"(?<![\w.-])/(work|root|home/\w+|opt)/\w"),
    "a registry or index address": re.compile(
        "https?://[^\\s\"')]*(" + "|".join(["pypi", "pythonhosted", "artifactory", "nexus", "devpi"]) + ")"
    ),
    "an unfinished thought": re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b"),
    "a secret": re.compile(r"sk-(ant|proj)-[\w-]{16,}|ghp_\w{20,}|hf_[A-Za-z]{30,}"),
}


@pytest.mark.parametrize("what", UNWANTED)
def test_tracked_files_hold_no(what):
    found = []
    for path in TEXT:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{name(path)}:{i}: {line.strip()[:120]}" for i, line in enumerate(lines, 1) if UNWANTED[what].search(line)]
    assert not found


def test_files_have_no_drawer_names():
    drawers = {"utils", "common", "helpers", "base", "manager", "core", "misc"}
    assert not [name(p) for p in OURS if p.stem in drawers]


def test_a_module_level_random_is_never_used():
    """Randomness is an input: a seeded generator, never the module's own."""
    found = []
    for path in OURS:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random"):
                continue
            if node.attr not in ("Random", "SystemRandom"):
                found.append(f"{name(path)}:{node.lineno}")
    assert not found


def test_experiments_do_not_import_one_another():
    found = []
    for path in (p for p in OURS if re.fullmatch(r"exp\d\d", p.stem)):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            found += [f"{name(path)}: {n}" for n in [*names, module] if re.search(r"\bexp\d\d$", n) and not n.endswith(path.stem)]
    assert not found


def test_the_readme_is_short():
    assert len((HOME / "README.md").read_text().splitlines()) <= 200


def test_the_pinned_versions_satisfy_what_the_project_asks_for():
    import tomllib

    from packaging.requirements import Requirement
    from packaging.version import Version

    lines = (HOME / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {key.lower().replace("_", "-"): Version(value) for key, value in pinned.items()}
    project = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [r for group in project["optional-dependencies"].values() for r in group]
    for requirement in map(Requirement, asked):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        key = requirement.name.lower().replace("_", "-")
        assert key in pinned, f"{requirement} is not pinned in constraints.txt"
        assert pinned[key] in requirement.specifier, f"{requirement} against the pinned {pinned[key]}"
