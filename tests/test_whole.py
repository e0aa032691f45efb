"""A file is there whole or not at all."""

from pathlib import Path

import pytest

from esr.whole import place, placing


def test_what_fails_in_the_middle_leaves_the_file_as_it_was_and_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "made" / "labels.csv"
    place(path, "né\n")

    def half() -> None:
        with placing(path) as file:
            file.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        half()
    assert path.read_text(encoding="utf-8") == "né\n"
    assert list(path.parent.iterdir()) == [path]
    with placing(path) as file:
        file.write(b"whole")
        assert path.read_text(encoding="utf-8") == "né\n"
    assert path.read_bytes() == b"whole"
