"""A question sees every view that it names or lists, though most are answered without making any."""

from pathlib import Path

import pytest
from store_rows import member, reply

from esr.errors import StoreError
from esr.store import Store, index, query, schema


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "store")
    found.put_members([member(0)])
    return found


@pytest.mark.parametrize(
    "question",
    [
        "select view_name as name from duckdb_views() where not internal",
        "show tables",
        "select table_name as name from information_schema.tables",
    ],
)
def test_what_there_is_to_ask_is_all_listed(store: Store, question: str) -> None:
    every = {item.name for item in schema.described() if item.kind == "view"}
    assert every <= set(store.sql(question)["name"].to_pylist())


@pytest.mark.parametrize("named", ["SUMMARY", '"summary"', "main.summary", "query_table('sum' || 'mary')"])
def test_a_view_is_found_however_it_is_named(store: Store, named: str) -> None:
    assert store.sql(f"select n_planned from {named}")["n_planned"].to_pylist() == [1]


def test_what_is_not_there_is_told_with_the_nearest_view(store: Store) -> None:
    with pytest.raises(StoreError, match=r"Did you mean.*summary"):
        store.sql("from replies, sumary")


def test_tables_alone_are_asked_without_making_views(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    build = query._build
    monkeypatch.setattr(query, "_build", lambda con, root, attached, views: made.append(views) or build(con, root, attached, views))
    assert store.sql("select count(*) as n from trials")["n"].to_pylist() == [1]
    assert store.sql("from summary").num_rows == 1
    assert made == [False, True]


class Asked:
    """Counts what DuckDB is asked."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times, plain = 0, store.sql

        def sql(*words: object, **more: object) -> object:
            self.times += 1
            return plain(*words, **more)  # type: ignore[arg-type]  # handed through

        monkeypatch.setattr(store, "sql", sql)


def test_texts_that_lie_in_few_shards_are_read_without_duckdb(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    some, asked = [member(i) for i in range(4)], Asked(store, monkeypatch)
    store.put_replies([reply(some[0], "one"), reply(some[1], "two")])
    Store(store.root).put_replies([reply(some[2], "three")])
    ids = [one.trial.id for one in some]
    assert store.texts(ids) == dict(zip(ids, ["one", "two", "three"], strict=False)), (
        "also another process's, and none that is not there"
    )
    assert store.texts([]) == {}
    assert asked.times == 0


def test_texts_of_a_trial_in_several_shards_are_those_that_the_table_has(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = member(0), member(1)
    asked = Asked(store, monkeypatch)
    store.put_replies([reply(first, "written first")])
    store.put_replies([reply(first, "written again"), reply(second, "other")])
    ids = [first.trial.id, second.trial.id]
    assert store.texts(ids) == {first.trial.id: "written first", second.trial.id: "other"}
    assert asked.times == 1


def test_texts_of_many_shards_or_of_one_that_is_gone_are_asked_of_the_table(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    many, asked = [member(i) for i in range(index.FEW + 1)], Asked(store, monkeypatch)
    for one in many:
        store.put_replies([reply(one, one.trial.prompt)])
    ids = [one.trial.id for one in many]
    assert store.texts(ids) == {one.trial.id: one.trial.prompt for one in many}
    assert asked.times == 1
    paths = sorted((store.root / "shards" / "replies").glob("*.parquet"))
    assert store.texts(ids[:2]) == {one.trial.id: one.trial.prompt for one in many[:2]}
    for path in paths:
        path.unlink()
    assert store.texts(ids[:2]) == {}
    assert asked.times == 2
