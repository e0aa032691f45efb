"""The authors' files give the numbers that were worked out by hand, and nothing foreign enters."""

import io
import json
import os
import random
import zipfile
from time import process_time

import numpy as np
import pytest
from authors_folder import AuthorsFolder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esr import params
from esr.__main__ import main
from esr.errors import DataError
from esr.reference import File, Names, arms, found, stream
from esr.reference.scores import number, whole
from esr.store import Store


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    root = tmp_path_factory.mktemp("authors")
    authors = AuthorsFolder(root / "data")
    foreign = authors.build()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESR_STORE", str(root / "store"))
        assert main(["import-reference", str(root / "data"), "--all"]) == 0
        yield authors, foreign, Store()


def counts(store):
    return {
        t: store.sql(f"select count(*) as n from {t}")["n"][0].as_py()
        for t in ("trials", "members", "arms", "grades", "thresholds", "findings", "imports")
    }


def test_every_rate_is_what_the_intentions_come_to(imported):
    authors, _, store = imported
    rows = {(r["experiment"], r["model"], r["arm"], r["judge"]): r for r in store.sql("from summary").to_pylist()}
    assert set(rows) == set(authors.expected)
    for key, expect in authors.expected.items():
        wanted = expect.row()
        got = {name: rows[key][name] for name in wanted}
        assert got == pytest.approx(wanted, rel=1e-12), key
        assert {name for name, value in got.items() if value is None} == {name for name, value in wanted.items() if value is None}


def test_an_imported_arm_has_its_level_and_a_sweep_the_thresholds_it_was_laid_over(imported):
    _, _, store = imported
    rows = store.sql(
        "select arm, kind, level, place, against, mean, std from current_arms where recorded and experiment = 'exp02' order by place"
    ).to_pylist()
    assert [tuple(row.values()) for row in rows if row["kind"] == "absolute"] == [
        (repr(boost), "absolute", boost, i, None, 9.0, 4.0) for i, boost in enumerate((0.0, 3.5, 7.25, 11.0))
    ]
    assert store.sql("select count(*) filter (not recorded) as n from current_arms")["n"].to_pylist() == [0]
    kinds = store.sql("select distinct experiment, kind from current_arms where kind <> 'set-aside' order by all").to_pylist()
    assert [tuple(row.values()) for row in kinds] == [
        ("exp01", "baseline"), ("exp02", "absolute"), ("exp03", "ablated"), ("exp04", "tuned"), ("exp05", "meta-prompt"), ("exp07", "judge"),
        ("exp08", "unsteered"), ("exp10", "ablated"),
    ]  # fmt: skip
    mean = "select count(*) as n from arms where mean is not null and experiment <> 'exp02'"
    assert store.sql(mean)["n"].to_pylist() == [0]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"threshold_cache_stats": {"mean": 9.0, "std": 4.0}, "boost_levels": [1, 2]}, (9.0, 4.0)),
        ({"threshold_cache_stats": {"mean": None}, "boost_levels": [0, 0, 1.5, 4.5, 7.5], "n_boost_levels": 5, "boost_range_std": 3.0}, (1.5, 2.0)),
        ({"boost_levels": [float(x) for x in range(2, 12)]}, (6.5, 1.5)),
        ({"boost_levels": [1, 2, 5], "n_boost_levels": 3, "boost_range_std": 3.0}, None),
        ({"boost_levels": "many"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_m_and_sigma_are_as_recorded_or_taken_back_from_even_levels(said, wanted):
    found = arms.spread(said)
    assert found == (pytest.approx(wanted) if wanted else None)


def test_of_several_sweeps_of_a_model_m_and_sigma_are_averaged():
    imported = [
        {"experiment": "exp02", "model": m, "arm": "1.0", "scale": "full", "kind": "absolute", "level": 1.0, "against": None}
        for m in "ab"
    ]
    told = [{"model": "a", "scale": "full", "sha256": s, "item": "threshold_cache_stats", "content": json.dumps({"mean": mean, "std": 2.0})}
            for s, mean in (("x", 4.0), ("y", 8.0))]  # fmt: skip
    assert [(row["mean"], row["std"]) for row in arms.rows(imported, told)] == [(6.0, 2.0), (None, None)]


def test_importing_again_changes_nothing(imported, capsys):
    authors, _, store = imported
    before = counts(store)
    assert main(["import-reference", str(authors.root)]) == 0
    assert counts(store) == before
    assert "in the store already" in capsys.readouterr().out


def test_what_is_foreign_is_named_and_nothing_of_it_enters(imported, tmp_path, monkeypatch, capsys):
    authors, foreign, store = imported
    used = set(store.sql("select file from imports")["file"].to_pylist())
    assert not [name for name in foreign if any(file.endswith(name) for file in used)]
    assert store.sql("from members where latent >= 900 and latent < 950").num_rows == 0
    assert main(["import-reference", str(authors.root), "--all"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in foreign)


def test_a_cut_off_file_gives_its_whole_latents_and_says_so(imported):
    _, _, store = imported
    row = store.sql("from imports where file like '%late_TIMEOUT%'").to_pylist()[0]
    assert "3 whole latents are taken" in row["problems"][0]
    assert store.sql("from members where latent = 799").num_rows == 0


def test_every_row_says_which_file_it_came_from(imported):
    _, _, store = imported
    for relation, column in (("trials", "trial_id"), ("thresholds", "calibration_id"), ("detectors", "set_id")):
        query = f"select {column} from {relation} anti join (from provenance semi join imports using (sha256)) p on p.id = {column}"
        assert store.sql(query).num_rows == 0


def test_the_smaller_files_come_in(imported):
    _, _, store = imported
    rows = store.sql(
        "select latent, threshold, target, status from thresholds semi join (select p.id as calibration_id from provenance p "
        "join imports i using (sha256) where i.kind = 'threshold_cache') using (calibration_id) order by all"
    ).to_pylist()
    assert [(r["latent"], r["threshold"], r["target"], r["status"]) for r in rows] == [
        (11, 9.5, 0.3, "reference"), (12, 8.25, None, "reference"), (7580, 9.4, None, "reference"), (7580, 10.4, None, "reference-ablated"),
    ]  # fmt: skip
    assert store.sql("select latent, mismatched_active from detectors order by rank").to_pylist() == [
        {"latent": 17481, "mismatched_active": 0.9}, {"latent": 9168, "mismatched_active": None}, {"latent": 40119, "mismatched_active": None},
    ]  # fmt: skip
    items = {
        (r["kind"], r["item"]): json.loads(r["content"]) for r in store.sql("select kind, item, content from findings").to_pylist()
    }
    assert items["concreteness", "castles"] == 90
    assert items["sequential_activations", "latent 33044"] == [0.0, 1.5]
    assert items["episodes", "e1"]["response"] == "r"
    assert items["baseline_stats", "otd_per_episode"] == [0.1, "nan"]
    assert items["analysis_results", "results"] == [1, 2]


def test_a_question_is_found_under_its_suffix(imported):
    _, _, store = imported
    rows = store.sql("select distinct question, prompt from outcomes where arm = 'self_monitor'").to_pylist()
    assert rows
    assert all(r["prompt"].startswith(r["question"] + " If you") for r in rows)


def test_of_an_ablated_run_the_clamps_are_kept(imported):
    _, _, store = imported
    query = (
        "select distinct arm, len(ops) as n, ops[2].kind as kind from trials join members using (trial_id) "
        "where arm in ('detectors', 'detectors-10') order by all"
    )
    rows = [("detectors", 26, "clamp"), ("detectors", 27, "clamp"), ("detectors-10", 11, "clamp")]
    assert [tuple(row.values()) for row in store.sql(query).to_pylist()] == rows


@pytest.mark.parametrize(
    ("value", "score"),
    [(85, 85.0), ("85", 85.0), (" 62.5 ", 62.5), (0, 0.0), ("1e2", 100.0), (None, None), (True, None), ("", None), ("85%", None), ("nan", None),
     (float("inf"), None), ([85], None), ({}, None), (10**400, None)],
)  # fmt: skip
def test_a_score_is_a_finite_number_or_its_text(value, score):
    assert number(value) == score


def test_a_latent_is_a_whole_number_that_fits():
    assert [whole(v) for v in (7, "7", 7.0, "7.5", 1 << 40, True, None)] == [7, 7, 7, None, None, None, None]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), lambda t: st.lists(t, max_size=4) | st.dictionaries(st.text(), t, max_size=4), max_leaves=20), st.integers(1, 40))  # fmt: skip
def test_a_streamed_file_says_what_json_says(tmp_path, items, chunk):
    tree = {"a": items, "results_by_feature": [items, 12, items], "z": 3.5}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False), encoding="utf-8", errors="surrogatepass")
    try:
        wanted = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "CHUNK", chunk)
        read = list(stream.entries(path))
    assert read[1] == ("results_by_feature", stream.LIST)
    assert [read[0], *read[2:]] == [
        ("a", wanted["a"]),
        *(("results_by_feature", item) for item in wanted["results_by_feature"]),
        ("z", 3.5),
    ]


def mutated(text: str, rng: random.Random) -> bytes:
    data = bytearray(text.encode())
    for _ in range(rng.choice([1, 1, 3, 20])):
        at, kind = rng.randrange(len(data)), rng.randrange(4)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.choice([1, 5, 200])]
        elif kind == 2:
            data[at:at] = rng.choice([b"}", b"]", b'"', b",", b"null", b"\\u0000", b"\\ud800", b"[[[[", b"1e999", b"NaN"])
        elif len(data) > 50:
            del data[at:]
            break
        if not data:
            data = bytearray(b" ")
    return bytes(data)


def test_a_mutated_file_never_crashes_the_import_or_enters_silently(tmp_path):
    """What Python's json refuses is refused, what it takes is stored with every trial it holds, and no other error comes out."""
    rng = random.Random(7)
    authors = AuthorsFolder(tmp_path / "data")
    path = authors.results(
        "experiment_results_Meta-Llama-3.3-70B-Instruct_20260101_000000.json", "Meta-Llama-3.3-70B-Instruct", ("a", "b", "c"), n=4
    )
    text, names, refused, store = path.read_text(), Names(params.load()), 0, Store(tmp_path / "store")
    for _ in range(250):
        path.write_bytes(mutated(text, rng))
        try:
            tree = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError):
            tree = None
        try:
            file = File(tmp_path, path, names)
            batches = list(file.batches())
        except DataError:
            refused += 1
            assert (
                tree is None
                or not isinstance(tree, dict)
                or not isinstance(tree.get("results_by_feature"), list)
                or "experiment_config" not in tree
                or isinstance(tree["experiment_config"], str)
            )
            continue
        assert tree is not None
        trials = [row for batch in batches for row in batch.get("trials", [])]
        held = sum(
            len(f.get("trials") or [])
            for f in tree["results_by_feature"]
            if isinstance(f, dict) and isinstance(f.get("trials"), list)
        )
        assert len(trials) == held or file.problems
        for batch in batches:
            for table, rows in batch.items():
                store.put(table, rows)
        assert len(store.known("trials", [row["trial_id"] for row in trials])) == len(trials)
    assert store.ingest().deferred is None
    assert 30 < refused < 245


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def archive(members, compression=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return out.getvalue()


GOOD = archive({"1.npy": npy(np.arange(50.0)), "2.npy": npy(np.arange(5))})
HUGE = npy(np.zeros(4)).replace(b"(4,)", b"(99999999999,)".ljust(4))
DAMAGED = {
    "cut off": GOOD[:-80],
    "not a zip": b"no zip at all" * 20,
    "empty": b"",
    "one array without its archive": npy(np.arange(4.0)),
    "a pickle": archive({"1.npy": npy(np.array([{"a": 1}], dtype=object))}),
    "a flipped byte": GOOD[:120] + bytes([GOOD[120] ^ 255]) + GOOD[121:],
    "a member that is no array": archive({"1.npy": b"words"}),
    "a header that is none": archive({"1.npy": npy(np.arange(3.0)).replace(b"{", b"(")}),
    "more than it holds": archive({"1.npy": HUGE}),
    "another packing": archive({"1.npy": npy(np.arange(3.0))}, zipfile.ZIP_LZMA),
    "encrypted": GOOD.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"),
    "words": archive({"1.npy": npy(np.array(["a", "b"]))}),
}


def test_a_damaged_archive_is_passed_over_and_the_rest_enters(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    folder = tmp_path / "data" / "activation_stats"
    folder.mkdir(parents=True)
    for i, content in enumerate(DAMAGED.values()):
        (folder / f"damaged{i}.npz").write_bytes(content)
    (folder / "whole.npz").write_bytes(GOOD)
    assert main(["import-reference", str(tmp_path / "data"), "--all"]) == 0
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    for i, why in enumerate(DAMAGED):
        assert f"damaged{i}.npz" in out, why
    assert Store().sql("select item from findings order by all")["item"].to_pylist() == ["whole/1", "whole/2"]


def test_an_archive_that_swells_costs_nothing(tmp_path):
    """A quarter of a gigabyte of zeros in 260 kB, more arrays than an episode has latents, and five million lists of no number."""
    folder = tmp_path / "activation_stats"
    folder.mkdir()
    zeros = npy(np.zeros(1 << 23))
    (folder / "bomb.npz").write_bytes(archive({f"{i}.npy": zeros for i in range(4)}))
    many = {f"{i}.npy": b"" for i in range(70_100)}
    (folder / "many.npz").write_bytes(archive(many, zipfile.ZIP_STORED))
    (folder / "lists.npz").write_bytes(archive({"1.npy": npy(np.zeros((5_000_000, 0)))}))
    for name in ("bomb", "many", "lists"):
        file, start = File(tmp_path, folder / f"{name}.npz", Names(params.load())), process_time()
        with pytest.raises(DataError, match="it holds"):
            list(file.batches())
        assert process_time() - start < 3


def test_a_name_that_is_not_utf8_leaves_nothing_half_in(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    authors = AuthorsFolder(tmp_path / "data")
    path = authors.results(
        "experiment_results_Meta-Llama-3.3-70B-Instruct_20260101_000000.json", "Meta-Llama-3.3-70B-Instruct", ("a", "b", "c"), n=2
    )
    odd = os.fsencode(tmp_path / "data") + b"/caf\xe9_judge"
    os.makedirs(odd + b"/activation_stats")
    os.rename(path, odd + b"/" + os.fsencode(path.name))
    with open(odd + b"/activation_stats/episode_\xff.npz", "wb") as file:
        file.write(GOOD)
    with open(odd + b"/notes[INST]\xff.txt", "wb") as file:
        file.write(b"x")
    for _ in range(2):
        assert main(["import-reference", str(tmp_path / "data")]) == 0
        out = capsys.readouterr()
        assert "Traceback" not in out.out + out.err
    store = Store()
    assert store.sql("select count(*) as n from imports")["n"].to_pylist() == [2]
    assert all("caf\ufffd_judge" in name for name in store.sql("select file from imports")["file"].to_pylist())
    assert store.sql("select distinct judge from grades")["judge"].to_pylist() == ["caf\ufffd"]
    assert store.sql("from provenance anti join imports using (sha256)").num_rows == 0


def test_names_that_look_like_markup_are_told_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    tree = {
        "experiment_config": {"model_name": "meta-llama/[bold]x", "prompt_variant_id": "[/b]"},
        "results_by_feature": [{"feature_index_in_sae": 1, "feature_label": "x", "trials": [{"prompt": "p", "threshold": 1.0}]}],
    }
    folder = tmp_path / "data" / "x_judge"
    folder.mkdir(parents=True)
    (folder / "experiment_5_prompt_variants_20260101_000000.json").write_text(json.dumps(tree))
    assert main(["import-reference", str(tmp_path / "data")]) == 0
    out = capsys.readouterr().out
    assert "[/b]" in out


def test_a_folder_without_any_of_their_files_is_a_users_mistake(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    (tmp_path / "x").mkdir()
    assert main(["import-reference", str(tmp_path / "x")]) == 2
    assert main(["import-reference", str(tmp_path / "nowhere")]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 2
    assert "Traceback" not in errors
    with pytest.raises(DataError, match="no such folder"):
        found(tmp_path / "nowhere")
