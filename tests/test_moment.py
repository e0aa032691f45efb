"""The store at one moment: what was there when it was opened, as the store itself answers."""

from pathlib import Path

import pytest
from store_rows import grade, member, reply

from esr.errors import StoreError
from esr.show.moment import moment
from esr.store import Store

COUNT = "select count(*) as n from outcomes"


def test_it_answers_as_the_store_did_when_it_was_opened(tmp_path: Path) -> None:
    store, some = Store(tmp_path / "store"), [member(i) for i in range(4)]
    store.put_members(some)
    store.put_replies([reply(m) for m in some])
    store.put_grades([grade(m, 20, 80) for m in some[:3]])
    summary = store.sql("from summary order by all")
    with moment(store) as now:
        assert now.sql("from summary order by all") == summary
        store.put_grades([grade(some[3], 10)])
        assert now.sql(COUNT)["n"].to_pylist() == [3]
        with moment(now) as same:
            assert same.sql(COUNT)["n"].to_pylist() == [3]
    assert store.sql(COUNT)["n"].to_pylist() == [4]


def test_a_question_that_cannot_be_answered_is_a_fault_of_the_question(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no_such_view"), moment(Store(tmp_path / "store")) as now:
        now.sql("from no_such_view")
