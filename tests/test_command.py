"""The command line answers in one sentence, exits with 2 on a user's mistake, and starts fast."""

import io
import json
import subprocess
import sys

import pytest

from esr.__main__ import COMMANDS, main
from esr.params import HOME
from esr.store import Store


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    (tmp_path / "store").mkdir()
    return Store()


def asked(capsys, *words: str) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def test_sql_answers_from_first_queries_as_a_table_and_as_json(store, capsys):
    store.put("replies", [{"trial_id": "a", "text": "b [bold]"}])
    assert "b [bold]" in asked(capsys, "sql", "from replies")
    assert json.loads(asked(capsys, "sql", "from replies select trial_id, text", "--json")) == [
        {"trial_id": "a", "text": "b [bold]"}
    ]
    assert json.loads(asked(capsys, "sql", "from summary", "--json")) == []
    assert json.loads(asked(capsys, "sql", "select 'nan'::double as x, timestamp '2026-01-02' as t", "--json")) == [
        {"x": None, "t": "2026-01-02T00:00:00"}
    ]


ROW = "select 'exp05/steered_latent_label' as arm, 'gemma-2-27b-it' as model, " + ", ".join(f"{i}.5 as rate_{i}" for i in range(12))


@pytest.mark.parametrize("columns", ["80", "200"])
def test_names_stay_whole_however_narrow_the_terminal_is(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    for terminal in ("1", ""):
        monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
        monkeypatch.setattr("rich.console.Console.is_terminal", bool(terminal))
        out = asked(capsys, "sql", ROW)
        assert "exp05/steered_latent_label" in out
        assert "rate_11" in out
        assert "…" not in out


READING = [["sql", "from summary"], ["agreement"], ["rejudge", "lexical"], ["runs"], ["show", "3f2a"], ["table", "exp01", "tiny"],
           ["diff", "exp05/self_monitor", "exp01/baseline", "--model", "tiny"], ["export", "exp01", "tiny", "--to", "x.csv"],
           ["share", "exp01", "tiny", "--to", "x"]]  # fmt: skip


@pytest.mark.parametrize("words", READING, ids=lambda words: words[0])
def test_a_store_that_is_not_there_is_one_sentence_for_a_command_that_reads(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "stoer"))
    assert main(words) == 2
    error = capsys.readouterr().err
    assert f"no store at '{tmp_path / 'stoer'}'; correct ESR_STORE" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "stoer").exists()


def test_a_sum_is_a_number_in_json(capsys):
    query = "select sum(x) as n, avg(x)::decimal(9, 2) as m from (values (1), (2)) v(x)"
    assert json.loads(asked(capsys, "sql", query, "--json")) == [{"n": 3, "m": 1.5}]


def test_two_columns_of_one_name_are_both_shown(capsys):
    query = "select 1 as a, 2 as b, 3 as a, 4 as a_1, 5 as a"
    assert json.loads(asked(capsys, "sql", query, "--json")) == [{"a": 1, "b": 2, "a_2": 3, "a_1": 4, "a_3": 5}]
    assert all(digit in asked(capsys, "sql", query) for digit in "12345")


@pytest.mark.parametrize("query", ["select row(1, 2) as y", "select [row(1, 2)] as y"])
@pytest.mark.parametrize("further", [[], ["--json"]])
def test_rows_whose_fields_have_no_names_are_one_sentence(capsys, query, further):
    assert main(["sql", query, *further]) == 2
    assert "column 'y' holds rows whose fields have no names of their own" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["sql", "from summary"], ["import-reference", "."]])
def test_a_store_that_is_no_folder_is_one_line(words, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.json").write_text('{"experiment_config": {}, "results_by_feature": []}')
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "a.json"))
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_query_may_come_from_standard_input(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("select 42 as answer"))
    assert json.loads(asked(capsys, "sql", "-", "--json")) == [{"answer": 42}]


def test_a_query_cannot_change_the_store(store):
    store.put("replies", [{"trial_id": "a", "text": "b"}])
    store.ingest()
    assert main(["sql", "delete from replies"]) == 2
    assert main(["sql", "delete from ingested.main.replies"]) == 2
    assert store.sql("from replies").num_rows == 1


@pytest.mark.parametrize(
    "words",
    [["sql", "selct 1"], ["sql", "from nowhere"], ["plan", "exp99", "70b"], ["plan", "exp01", "71b"], ["schema", "sumary"],
     ["import-reference", "/no/such/folder"], ["plan", "exp01", "70b", "--judge", "haiku"], ["plan", "exp01", "70b", "--scale", "huge"],
     ["plan", "exp01", "70b", "--tokens-per-second", "0"]],
)  # fmt: skip
def test_a_users_mistake_is_one_line_and_exit_code_2(words, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"python -m esr {words[0]}: ")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    assert f"python -m esr {name}" in capsys.readouterr().out.split("example")[1]


def test_help_loads_nothing_heavy():
    code = "import sys; from esr.__main__ import parser; parser(); print([m for m in ('torch', 'vllm', 'duckdb', 'litellm', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOME, check=True)
    assert done.stdout.strip() == "[]"


def test_doctor_names_keys_and_never_shows_one(store, capsys, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-very-secret")
    store.put(
        "members", [{"experiment": "exp01", "model": "m", "arm": "a", "scale": "full", "plan": "p", "trial_id": "t", "latent": 1}]
    )
    for words in (["doctor"], ["doctor", "--json"]):
        out = asked(capsys, *words)
        assert "ANTHROPIC_API_KEY" in out
        assert "sk-very-secret" not in out
    found = json.loads(out)
    assert found["keys"]["ANTHROPIC_API_KEY"] is True
    assert found["store"]["members"] == {"exp01": 1}
    assert found["libraries"]["duckdb"]


def test_a_plan_counts_trials_and_calls_and_gives_hours_by_the_rough_rate_or_the_one_told(capsys):
    found = json.loads(asked(capsys, "plan", "exp01", "70b", "--json"))
    assert (found["latents"], found["baseline_trials"], found["search_replies"]) == (500, 2500, 500 * (30 + 5))
    assert found["judge_calls"] >= found["baseline_trials"] + found["search_replies"]
    assert found["tokens_at_most"] == 2500 * 512 + 17500 * 256
    assert found["hours_at_most"] == pytest.approx(found["tokens_at_most"] / found["tokens_per_second"] / 3600, abs=0.06)
    assert "--tokens-per-second" in asked(capsys, "plan", "exp01", "70b")
    assert "generated anew: latent 7580 at boost 9.4, “Explain how to calculate probability.”, seed 621104" in asked(
        capsys, "plan", "exp06", "70b"
    )
    assert "named  " not in asked(capsys, "plan", "exp06", "8b")
    told = json.loads(asked(capsys, "plan", "exp01", "70b", "--json", "--tokens-per-second", "1000"))
    assert told["hours_at_most"] == pytest.approx(found["tokens_at_most"] / 3.6e6, abs=0.06)


def test_the_schema_of_one_view_is_shown(capsys):
    out = asked(capsys, "schema", "summary")
    assert "improvement_rate" in out
    assert "view outcomes" not in out
