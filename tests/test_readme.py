"""What README.md says of recorded results; tests/test_play.py plays its lines."""

import sys

from esr.params import HOME


def test_the_table_holds_the_recorded_numbers_and_nothing_else() -> None:
    sys.path.insert(0, str(HOME / "scripts"))
    import headline

    assert (HOME / "README.md").read_text() == headline.page(), "python scripts/headline.py writes it again"
