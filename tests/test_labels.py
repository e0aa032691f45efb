"""Labels fetched from an export in Neuronpedia's layout, imported from files of other shapes, and what is said when they are not there."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from neuronpedia_bucket import Bucket, line, served

from esr import params
from esr.__main__ import main
from esr.errors import SaeError
from esr.sae.labels import read_labels
from esr.sae.neuronpedia import BASE
from esr.sae.registry import source
from esr.store import Store
from esr.study.study import Study

SOURCE = "gemma-2-9b/26-gemmascope-res-16k"
BATCHES = [
    [line(7, "castles and moats"), line(3, "the letter q", "gpt-3.5-turbo")],
    [line(16383, "rain,  and\nsnow"), line(7, "fortresses", "claude"), line(5, "  ")],
    [line(3, "words with q"), line(2, 'said "so"')],
]
WANTED = {2: 'said "so"', 3: "words with q", 7: "castles and moats", 16383: "rain, and snow"}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    made = Bucket()
    made.put(SOURCE, BATCHES)
    with served(made):
        yield made


def fetch(bucket: Bucket, of: str = "gemma-9b") -> int:
    return main(["labels", "fetch", of, "--from", bucket.url])


def stored(store: Path) -> dict[int, str]:
    file = store / params.load().sae("gemma-9b-l26").labels
    return {latent.index: latent.label for latent in read_labels(file, d_sae=16384)}


def test_labels_are_fetched_page_by_page_and_a_study_reads_them(
    bucket: Bucket, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(bucket) == 0
    said = capsys.readouterr().out
    assert "4 of 16,384 latents of gemma-9b-l26" in said
    assert "4 by gpt-4o-mini" in said
    assert stored(store) == WANTED
    assert [latent.index for latent in Study.of("gemma-9b").labels] == sorted(WANTED)


def test_what_is_whole_is_not_fetched_again(bucket: Bucket) -> None:
    assert fetch(bucket) == fetch(bucket) == 0
    assert len(bucket.asked) == 3


def test_what_broke_off_goes_on_where_it_was(bucket: Bucket, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = f"v1/{SOURCE}/explanations/batch-1.jsonl.gz"
    bucket.cut.add(key)
    assert fetch(bucket) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (store / params.load().sae("gemma-9b-l26").labels).exists()
    assert fetch(bucket) == 0
    assert bucket.asked[-2] == (key, f"bytes={len(bucket.files[key]) // 2}-")
    assert stored(store) == WANTED


def test_bytes_with_another_checksum_are_refused_and_not_kept(bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    bucket.spoilt.add(f"v1/{SOURCE}/explanations/batch-0.jsonl.gz")
    assert fetch(bucket) == 2
    assert "another checksum" in capsys.readouterr().err
    bucket.spoilt.clear()
    assert fetch(bucket) == 0


def test_an_export_of_another_sae_is_refused(bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    bucket.put(SOURCE, [[line(16384, "too far")]])
    assert fetch(bucket) == 2
    assert "another SAE's export" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [(["fetch", "gemma-9b", "--from", "http://127.0.0.1:9"], "cannot be reached"), (["fetch", "8b"], "no public labels are known"),
     (["fetch", "gema-9b"], "nearest: gemma-9b"), (["fetch", "gemma-9b", "--from", "nonsense"], "cannot be reached"),
     (["import", "/no/such.csv", "--for", "8b"], "no file at")],
)  # fmt: skip
def test_what_cannot_be_had_is_one_sentence(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_source_without_explanations_is_one_sentence(bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch(bucket, "gemma-2b") == 2
    assert "has no explanations of 'gemma-2-2b/16-gemmascope-res-16k'" in capsys.readouterr().err


def test_every_gemma_scope_sae_and_the_largest_llamas_have_a_public_source() -> None:
    known = {sae.name: source(sae) for sae in params.load().saes.values()}
    assert known["gemma-9b-l26"] == SOURCE
    assert known["goodfire-70b-l50"] == "llama3.3-70b-it/50-resid-post-gf"
    assert {name for name, where in known.items() if where is None} == {"goodfire-8b-l19", "tiny-l3", "smollm2-l18"}
    assert BASE.startswith("https://neuronpedia-datasets.")


FORMS = {
    "a.csv": 'feature,description\n7,"castles, moats"\n3,q\n',
    "b.tsv": "index\tlabel\n3\tq\n7\tcastles, moats\n",
    "c.json": json.dumps([{"feature_index": 3, "explanation": "q"}, {"feature_index": "7", "explanation": "castles, moats"}]),
    "d.json": json.dumps({"3": "q", "7": "castles, moats"}),
    "e.jsonl": '{"index": "7", "description": "castles, moats"}\n{"index": "3", "description": "q"}\n{"index": "4", "description": ""}\n',
}


@pytest.mark.parametrize("name", [*FORMS, "e.jsonl.gz"])
def test_a_file_of_another_shape_is_imported(name: str, tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = FORMS[name.removesuffix(".gz")].encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert main(["labels", "import", str(tmp_path / name), "--for", "gemma-9b"]) == 0
    assert "2 of 16,384" in capsys.readouterr().out
    assert stored(store) == {3: "q", 7: "castles, moats"}


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [("nr,what\n1,a\n", [], "--index"), ("index,label\n1,a\n1,b\n", [], "labels latent 1 twice"), ("index,label\nx,a\n", [], "not a number"),
     ("index,label\n99999,a\n", [], "another SAE's labels"), ("index,label\n", [], "holds no rows"), ("nr,what\n1,a\n", ["--index", "n"], "no column 'n'")],
)  # fmt: skip
def test_a_file_that_does_not_do_is_one_sentence(
    text: str, words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.csv").write_text(text)
    assert main(["labels", "import", str(tmp_path / "x.csv"), "--for", "gemma-9b", *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.json", b"[" * 100_000), ("x.jsonl", b'{"index": ' + b"[" * 100_000), ("x.csv.gz", gzip.compress(b"index,label\n" * 99)[:-20] + bytes(20))],
    ids=["json", "jsonl", "gz"],
)  # fmt: skip
def test_a_damaged_or_endless_file_is_one_sentence(
    name: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["labels", "import", str(tmp_path / name), "--for", "gemma-9b"]) == 2
    assert f"{name} cannot be read" in capsys.readouterr().err


def test_half_a_character_and_a_rare_line_break_are_part_of_a_label(tmp_path: Path, store: Path) -> None:
    rows = '{"index": 1, "label": "a \\ud800 b"}\n{"index": 2, "label": "c\u2028d"}\n'
    (tmp_path / "x.jsonl").write_text(rows, encoding="utf-8")
    assert main(["labels", "import", str(tmp_path / "x.jsonl"), "--for", "gemma-9b"]) == 0
    assert stored(store) == {1: "a ? b", 2: "c d"}


def test_columns_may_be_named(tmp_path: Path, store: Path) -> None:
    (tmp_path / "x.csv").write_text("nr,what\n1,a\n")
    assert main(["labels", "import", str(tmp_path / "x.csv"), "--for", "gemma-9b-l26", "--index", "nr", "--label", "what"]) == 0
    assert stored(store) == {1: "a"}


def test_a_run_without_labels_names_the_command_that_says_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(SaeError, match=r"python -m esr doctor gemma-9b"):
        Study.of("gemma-9b", store=Store(tmp_path)).check([])


def test_the_lines_of_the_docs_do_what_they_say(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from esr.params.__main__ import main as of_params

    (tmp_path / "params.yaml").write_text(params.path().read_text())
    (tmp_path / "mine.csv").write_text("feature,description\n7,castles\n")
    monkeypatch.setenv("ESR_PARAMS", str(tmp_path / "params.yaml"))
    monkeypatch.chdir(params.HOME)
    text = (params.HOME / "docs" / "models.md").read_text()
    shown = [line.partition("#")[0].split() for line in text.splitlines() if line.startswith("python -m ")]
    assert len(shown) == 7
    monkeypatch.setenv("ESR_ENGINE", "fake")
    for words in shown:
        given = [str(tmp_path / "mine.csv") if word == "FILE" else word for word in words[3:]]
        given += ["--from", bucket.url] if given[:1] == ["fetch"] or given[:2] == ["labels", "fetch"] else []
        code = of_params(given) if words[2] == "esr.params" else main(given)
        assert code == (1 if given[0] == "doctor" else 0), (words, capsys.readouterr().err)
    assert params.load("mine").model("mine").family == "tiny"
