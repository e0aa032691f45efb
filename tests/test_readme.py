"""What README.md and docs/finetuning.md say of recorded results; tests/test_play.py plays their lines."""

import sys

from esr.params import HOME


def test_the_table_holds_the_recorded_numbers_and_nothing_else() -> None:
    sys.path.insert(0, str(HOME / "scripts"))
    import headline

    assert (HOME / "README.md").read_text() == headline.page(), "python scripts/headline.py writes it again"


def test_the_table_of_what_training_brings_about_is_the_recorded_one() -> None:
    sys.path.insert(0, str(HOME / "scripts"))
    import tuned_table

    assert tuned_table.PAGE.read_text() == tuned_table.page(), "python scripts/tuned_table.py writes it again"
