"""Every line of README.md, and of the pages beside it, does in a fresh clone what is printed of it."""

import subprocess
import warnings
from collections.abc import Iterator

import pytest
from player import Clone, Line, opened
from promises import OTHERWISE, dirt, play, stale, to_play, unplayed

from esr.params import HOME

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        subprocess.run(["git", "rev-parse"], cwd=HOME, capture_output=True).returncode != 0, reason="not a git checkout"
    ),
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    yield from opened(tmp_path_factory.mktemp("played"))


def test_what_is_said_of_lines_is_of_lines_that_are_there() -> None:
    assert not stale()


def test_every_page_with_lines_to_type_in_is_played() -> None:
    assert not unplayed()


def test_what_is_not_played_as_printed_says_why() -> None:
    assert all(one.why for one in OTHERWISE)
    assert [one.command for one in OTHERWISE if one.left_out] == [
        ".venv/bin/python -m deployments up --gpus 0 1",
        ".venv/bin/prefect deployment run exp01/8b",
    ]


@pytest.mark.parametrize("line", to_play(), ids=str)
def test_a_line_does_what_the_page_says(clone: Clone, line: Line) -> None:
    play(clone, line)


def test_nothing_that_git_tracks_has_changed(clone: Clone) -> None:
    assert dirt(clone) == []
    if clone.dirt():
        warnings.warn(f"the results are not the recorded ones, as on another processor: {', '.join(clone.dirt())}", stacklevel=1)
