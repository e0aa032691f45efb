"""Labels made here: counting by hand, evidence against brute force, the whole command on the fake engine, over HTTP and killed, and the real engine once."""

import csv
import json
import math
import os
import random
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from judge_server import Provider
from judge_setup import KEY

from esr import params
from esr.__main__ import main
from esr.errors import DataError, SaeError
from esr.judge import Passage
from esr.labelling import evidence, local, readings, texts
from esr.labelling.concreteness import concreteness
from esr.labelling.passages import whole_word
from esr.labelling.readings import Peaks
from esr.labelling.score import Bag, auc, balanced, named
from esr.labelling.words import Counts, z_score
from esr.sae.labels import read_labels
from esr.store import Store
from esr.study.study import Study
from esr.study.written import Written

THEMES = {
    "castles": "castle moat tower drawbridge knight rampart",
    "bees": "hive nectar bee honey pollen swarm",
    "coffee": "coffee beans grinder kettle filter mug",
    "trains": "railway engine whistle carriage platform signal",
}


def corpus(path: Path, n: int = 16) -> Path:
    """Texts of three plain sentences on one theme each."""
    rng = random.Random(1)
    rows = []
    for i in range(n):
        for name, said in THEMES.items():
            words = rng.sample(said.split(), 3)
            text = " ".join(f"First, look at the {word} and then rest." for word in words)
            rows.append({"text": text, "group": name, "prompt": f"Tell me about {name}." if i % 2 else ""})
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


# counted by hand


def test_log_odds_are_those_worked_by_hand() -> None:
    prior = 100 * 10 / 1000
    delta = math.log((8 + prior) / (100 + 100 - 8 - prior)) - math.log((10 + prior) / (1000 + 100 - 10 - prior))
    assert z_score(8, 100, 10, 1000) == pytest.approx(delta / math.sqrt(1 / 9 + 1 / 11))
    assert z_score(8, 100, 10, 1000) == pytest.approx(3.4264, abs=1e-4)
    assert z_score(1, 100, 10, 1000) == pytest.approx(0.0, abs=1e-12), "as common as elsewhere"


def test_a_word_counts_once_a_passage() -> None:
    found = Counts.among(["the bee, the Bee's hive", "a bee"])
    assert dict(found.of) == {"the": 1, "bee": 2, "bee's": 1, "hive": 1, "a": 1}
    assert found.total == 6


def test_auc_and_its_interval_are_those_worked_by_hand() -> None:
    found = auc(np.array([0.5, 0.2, 0.2, 0.0]), np.array([True, False, True, False]), 0.95)
    assert found.value == 3.5 / 4, "a tie counts half"
    z, p = 1.959964, 3.5 / 4  # n = 1 / (1/2 + 1/2) = 1
    half = z * math.sqrt(p * (1 - p) + z * z / 4)
    assert found.low == pytest.approx((p + z * z / 2 - half) / (1 + z * z), abs=1e-6)
    assert found.high == pytest.approx((p + z * z / 2 + half) / (1 + z * z), abs=1e-6)
    assert (found.n, found.fired, found.better_than_chance) == (4, 2, False)


def test_an_auc_of_1_needs_five_texts_to_be_better_than_chance() -> None:
    found = [auc(np.r_[np.ones(n), np.zeros(96)], np.r_[np.ones(n, bool), np.zeros(96, bool)], 0.95) for n in (4, 5)]
    assert [score.better_than_chance for score in found] == [False, True]


@pytest.mark.parametrize(("fired", "shift"), [(5, 0.0), (8, 1.0), (20, 2.0)])
def test_the_interval_of_an_auc_holds_the_truth_as_often_as_it_says(fired: int, shift: float) -> None:
    from statistics import NormalDist

    rng, truth = np.random.default_rng(3), NormalDist().cdf(shift / math.sqrt(2))
    fires = np.r_[np.ones(fired, bool), np.zeros(60, bool)]
    found = [auc(rng.normal(size=60 + fired) + shift * fires, fires, 0.95) for _ in range(600)]
    assert np.mean([score.low <= truth <= score.high for score in found]) >= 0.95


def test_balanced_accuracy_is_the_mean_of_both_halves_and_chance_is_a_half() -> None:
    assert (balanced(7, 8, 6, 8, 0.95).value, balanced(7, 8, 6, 8, 0.95).n) == (13 / 16, 16)
    assert not balanced(8, 8, 0, 8, 0.95).better_than_chance, "who names every passage knows nothing"
    assert balanced(8, 8, 8, 8, 0.95).low > 0.5


def test_a_label_goes_by_its_words_and_not_by_its_form() -> None:
    assert named("about hive, nectar") == {"hive", "nectar"}
    assert named('where the text says "next", "then"') == {"next", "then"}
    assert named("castles and their moats") == {"castles", "and", "their", "moats"}
    assert Bag(["a hive by a hive", "no bee"]).share("about hive, nectar").tolist() == [2 / 5, 0.0]


# the local labeller


def shown(*marked: tuple[str, str, str]) -> list[Passage]:
    return [Passage(before=before, fires_on=on, after=after) for before, on, after in marked]


def test_a_token_within_a_word_stands_for_the_word() -> None:
    (one, two, three) = shown(("the draw", "bri", "dge fell"), ("a", " moat", ", deep"), ("so", ".", " It"))
    assert [whole_word(p) for p in (one, two, three)] == ["drawbridge", "moat", "."]


def test_labels_name_the_word_or_what_is_over_represented_or_nothing() -> None:
    background = Counts.among(f"look at the {w} and rest" for said in THEMES.values() for w in said.split() * 20)
    assert local.label(shown(*[("look at the", " moat", " and rest")] * 8), background).label == 'the word "moat"'
    around = [
        (f"look at the {w} and the castle", " and", " rest") if i % 2 else (f"the castle, the {w},", " rest", "")
        for i, w in enumerate(["moat", "tower", "knight", "rampart", "moat", "tower"])
    ]
    assert local.label(shown(*around), background).label.startswith("about castle")
    plain = [("look at the", f" {w}", " and rest") for said in THEMES.values() for w in said.split()[:2]]
    assert local.label(shown(*plain), background).missing


def test_concreteness_without_a_key() -> None:
    assert concreteness("about hive, nectar, bee, honey") == 100
    assert concreteness('the word "hive"') == concreteness("punctuation and commas") == 0
    assert concreteness("expressions of uncertainty") < 40 < concreteness("castles and their moats")
    passages = ["the hive hums", "a mug", "a kettle", "a train"]
    assert concreteness("about hive, nectar", passages) == 50, "a label that half of what it needs bears out"


# the evidence


def peaks(n_texts: int, d_sae: int, active: int, seed: int, first: int = 0) -> Peaks:
    rng = np.random.default_rng(seed)
    latent = np.concatenate([rng.choice(d_sae, active, replace=False) for _ in range(n_texts)]).astype(np.int32)
    text = np.repeat(np.arange(first, first + n_texts, dtype=np.int32), active)
    value = rng.integers(1, 20, len(latent)).astype(np.float32)
    return Peaks(text, latent, rng.integers(0, 30, len(latent)).astype(np.int32), value)


def test_evidence_is_what_brute_force_finds_however_the_readings_are_cut() -> None:
    d_sae, n = 50, 120
    held = np.arange(n) % 2 == 1
    whole = peaks(n, d_sae, 20, 5)
    ends = [0, 7 * 20, 60 * 20, n * 20]
    cut = [Peaks(*(column[a:b] for column in (whole.text, whole.latent, whole.at, whole.value))) for a, b in pairwise(ends)]
    one, many = evidence.gather(lambda: iter([whole]), d_sae, held), evidence.gather(lambda: iter(cut), d_sae, held)
    for latent in range(d_sae):
        mine = whole.latent == latent
        seen = sorted(
            (-v, t, a) for t, a, v in zip(whole.text[mine], whole.at[mine], whole.value[mine], strict=True) if not held[t]
        )
        largest = -seen[0][0]
        assert one.largest[latent] == many.largest[latent] == largest
        wanted = [(t, a, -v) for v, t, a in seen[: evidence.TOP]]
        assert one.top.of(latent) == many.top.of(latent) == wanted
        fires = {t for t, v in zip(whole.text[mine], whole.value[mine], strict=True) if v >= evidence.FIRES * largest}
        assert one.fires(latent).tolist() == many.fires(latent).tolist() == [t in fires for t in np.flatnonzero(held)]
        assert one.fired[latent] == sum(not held[t] for t in fires)
        assert one.some.of(latent) == many.some.of(latent)
        assert one.held.of(latent) == many.held.of(latent)
        assert {t for t, _, _ in one.some.of(latent)} <= {t for t in fires if not held[t]}
        assert {t for t, _, _ in one.held.of(latent)} <= {t for t in fires if held[t]}


def test_evidence_of_65536_latents_stays_within_what_is_said_whatever_comes() -> None:
    d_sae, each, active = 65_536, 32, 2_000

    def largest(parts: int) -> int:
        held = np.arange(parts * each) % 2 == 1
        tracemalloc.start()
        evidence.gather(lambda: (peaks(each, d_sae, active, i, i * each) for i in range(parts)), d_sae, held)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, more = largest(2), largest(6)
    said = evidence.memory(d_sae, 6 * each // 2)
    assert said < 60 * 2**20
    assert more < 2.2 * said + 40 * 2**20, "twice what is held while a part is added, and the part"
    assert more < 1.3 * few, "what comes does not add up"


# the whole, on the fake engine


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESR_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ESR_ENGINE", "fake")
    monkeypatch.setenv("ESR_FAKE_LOG", str(tmp_path / "generated.jsonl"))
    return tmp_path / "store"


def lines(path: Path) -> dict[int, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {int(row["index_in_sae"]): row for row in csv.DictReader(file)}


def test_labels_are_made_and_a_study_reads_them(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["labels", "make", "tiny", "--texts", str(corpus(tmp_path / "mine.jsonl"))]) == 0
    said = capsys.readouterr().out
    path = store / "labels" / "tiny-l3-local.csv"
    assert "labels: labels/tiny-l3-local.csv" in said
    rows, about = lines(path), json.loads(path.with_suffix(".json").read_text())
    assert len(rows) == 2048
    labelled = {k: row for k, row in rows.items() if row["label"]}
    assert len(labelled) == about["labelled"] > 20
    assert all(row["label"] or row["reason"] for row in rows.values()), "a latent without a label has a reason"
    assert all(float(row["score_low"]) > 0.5 and row["method"] == "words" and int(row["n"]) == 32 for row in labelled.values())
    assert {row["label"] for row in labelled.values()} & {'the word "moat"', 'the word "hive"', 'the word "kettle"'}
    assert sum(about["reasons"].values()) + about["labelled"] == 2048
    assert about["sae_content"]
    assert about["texts"]["n"] == 64
    text = params.path().read_text().replace("labels: esr/organism/data/labels.csv", "labels: labels/tiny-l3-local.csv")
    (tmp_path / "params.yaml").write_text(text)
    monkeypatch.setenv("ESR_PARAMS", str(tmp_path / "params.yaml"))
    study = Study.of("tiny")
    assert [latent.index for latent in study.labels] == sorted(labelled)
    assert (study.rater.name, study.rater.abilities.local) == ("labels", True), "their file says how concrete they are"
    k, row = next(iter(labelled.items()))
    assert study.rater.ratings([row["label"], "quite another"])[1] is None
    assert study.rater.ratings([row["label"]])[0] <= float(labelled[k]["concreteness"])


def test_texts_made_by_the_model_are_kept_and_a_second_call_makes_none(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "subjects.txt").write_text("castles\nhoneybees\n")
    words = ["labels", "make", "tiny", "--subjects", str(tmp_path / "subjects.txt"), "--replies", "1"]
    assert main(words) == 0
    first = capsys.readouterr()
    file = store / "labels" / "tiny-l3-local.csv"
    made, generated = file.read_bytes(), (tmp_path / "generated.jsonl").read_text().count("\n")
    assert generated == 4 * (38 + 20 + 2)
    assert f"texts: {generated} of {generated}" in caplog.text
    assert "nothing is paid" in first.err
    assert main(words) == 0
    assert (tmp_path / "generated.jsonl").read_text().count("\n") == generated
    assert file.read_bytes() == made


@pytest.mark.slow
def test_a_killed_labelling_goes_on_and_ends_as_if_nobody_had(store: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "esr", "labels", "make", "tiny", "--subjects", str(tmp_path / "s.txt"), "--replies", "1"]
    (tmp_path / "s.txt").write_text("castles\nhoneybees\n")
    env = {**os.environ, "ESR_FAKE_DELAY": "0.5"}
    for sign in ("texts: ", "read: "):
        with subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True) as run:
            assert run.stderr is not None
            for line in run.stderr:
                if line.startswith(sign):
                    break
            else:
                pytest.fail(f"never came to {sign!r}")
            os.kill(run.pid, signal.SIGKILL)
    assert subprocess.run(words, env=env).returncode == 0
    generated = (tmp_path / "generated.jsonl").read_text().splitlines()
    in_flight = Study.of("tiny").params.work.batch * Study.of("tiny").params.work.in_flight
    assert len(generated) - len(set(generated)) <= in_flight, "only what was in flight is made again"
    killed = (store / "labels" / "tiny-l3-local.csv").read_bytes()
    whole = {**env, "ESR_STORE": str(tmp_path / "other"), "ESR_FAKE_DELAY": "0"}
    assert subprocess.run(words, env=whole, capture_output=True).returncode == 0
    assert (tmp_path / "other" / "labels" / "tiny-l3-local.csv").read_bytes() == killed


@pytest.mark.parametrize(
    ("words", "says"),
    [(["tinny"], "nearest: tiny"), (["tiny", "--texts", "no.txt"], "no texts at"), (["tiny", "--texts", "empty.txt"], "holds 0 texts"),
     (["tiny", "--by", "haiku-4.5"], "needs a key"), (["tiny", "--by", "lexical"], "writes no labels"), (["tiny", "--by", "nobody"], "no judge 'nobody'"),
     (["tiny", "--subjects", "empty.txt"], "holds no subject"), (["tiny", "--replies", "0"], "at least 1"), (["tiny", "--to", "x.json"], "labels are a CSV")],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(
    words: list[str], says: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    assert main(["labels", "make", *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_an_sae_that_is_not_there_is_one_sentence(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_text(params.path().read_text().replace("repo: esr/organism/data/sae", "repo: no/such/sae"))
    monkeypatch.setenv("ESR_PARAMS", str(tmp_path / "params.yaml"))
    assert main(["labels", "make", "tiny"]) == 2
    error = capsys.readouterr().err
    assert "no/such/sae" in error
    assert error.count("\n") == 1


def test_texts_of_a_person_are_read_as_they_are_and_cut_to_the_models_length(store: Path, tmp_path: Path) -> None:
    study = Study.of("tiny", store=Store(store))
    rows = texts.given(corpus(tmp_path / "mine.jsonl", 2))
    (tmp_path / "plain.txt").write_text("the hive hums\n\nthe moat is deep\n" + "the moat " * 600)
    found = [*texts.read_by(study, rows), *texts.read_by(study, texts.given(tmp_path / "plain.txt"))]
    assert [text.held for text in found[:8]] == [False] * 4 + [True] * 4
    assert all(len(text.prompt_ids) + len(text.ids) < study.spec.max_model_len for text in found)
    assert all("".join(text.text[lo:hi] for lo, hi in text.spans) == text.text for text in found)
    texts.keep(tmp_path / "kept.jsonl", found)
    assert texts.kept(tmp_path / "kept.jsonl") == found
    (tmp_path / "bad.jsonl").write_text('{"words": 1}\n')
    with pytest.raises(DataError, match="no field text"):
        texts.given(tmp_path / "bad.jsonl")


# over HTTP


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Path) -> Iterator[Provider]:
    server = Provider().start()
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))
    text = params.path().read_text().replace("client: anthropic\n", f"client: anthropic\n    api_base: {server.url}\n")
    (tmp_path / "params.yaml").write_text(text.replace("per_minute: 1000", "per_minute: 0"))
    monkeypatch.setenv("ESR_PARAMS", str(tmp_path / "params.yaml"))
    corpus(tmp_path / "mine.jsonl")
    yield server
    server.stop()


def by_judge(tmp_path: Path, *more: str) -> int:
    return main(["labels", "make", "tiny", "--texts", str(tmp_path / "mine.jsonl"), "--by", "haiku-4.5", "--latents", "20", *more])


def test_a_judge_labels_tests_and_rates_over_http_and_is_paid_once(
    provider: Provider, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_judge(tmp_path, "--plan") == 0
    said = capsys.readouterr().err
    assert "at most 41 calls" in said
    assert "about $0.0" in said
    assert not provider.requests
    assert by_judge(tmp_path) == 0
    rows = lines(store / "labels" / "tiny-l3-haiku-4.5.csv")
    labelled = [row for row in rows.values() if row["label"]]
    assert labelled
    assert {row["method"] for row in labelled} == {"detection"}
    assert all(float(row["score_low"]) > 0.5 for row in labelled)
    assert all(float(row["concreteness"]) == len(row["label"]) % 101 for row in labelled)
    n = len(provider.requests)
    assert 21 <= n <= 41
    before = (store / "labels" / "tiny-l3-haiku-4.5.csv").read_bytes()
    assert by_judge(tmp_path) == 0
    assert len(provider.requests) == n, "nothing is paid twice"
    assert (store / "labels" / "tiny-l3-haiku-4.5.csv").read_bytes() == before


def test_what_is_spent_ends_at_the_limit_and_the_same_line_goes_on(
    provider: Provider, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_judge(tmp_path, "--max-cost", "0.004") == 3
    said = capsys.readouterr()
    assert "no more than $0.00" in said.err
    assert "the same line goes on" in said.out
    some = len(provider.requests)
    assert 0 < some < 30
    assert by_judge(tmp_path) == 0
    assert max(provider.answered().values()) == 1


def test_an_answer_without_the_form_is_repaired_and_a_refusal_is_a_reason(provider: Provider, store: Path, tmp_path: Path) -> None:
    provider.schedule.plan = ["types", "ok", "refusal"]
    assert by_judge(tmp_path) == 0
    reasons = [row["reason"] for row in lines(store / "labels" / "tiny-l3-haiku-4.5.csv").values()]
    assert "refused" in {reason.partition(":")[0] for reason in reasons}
    assert not [reason for reason in reasons if reason.startswith("malformed")]


# the real engine


@pytest.mark.slow
def test_the_real_engine_reads_what_the_reference_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from esr.engine.open import open_engine

    study = Study.of("tiny", store=Store(tmp_path))
    asked = texts.trials(study, ["castles"], 1)[:6]
    found = list(texts.own(study, asked))
    assert [text.held for text in found] == [False, True, False, True, False, True]
    assert all("".join(text.text[lo:hi] for lo, hi in text.spans) == text.text for text in found)
    real = readings.peaks(study, found, 0)
    monkeypatch.setenv("ESR_ENGINE", "hf")
    theirs = readings.peaks(study, found, 0)
    assert len(real.latent) > 20
    strong, same = (
        real.value > 1e-2,
        {(t, k): (a, v) for t, k, a, v in zip(theirs.text, theirs.latent, theirs.at, theirs.value, strict=True)},
    )
    for t, k, a, v in zip(real.text[strong], real.latent[strong], real.at[strong], real.value[strong], strict=True):
        assert same[t, k][1] == pytest.approx(v, rel=1e-3, abs=1e-3)
        assert same[t, k][0] == a
    assert open_engine(study.params, "tiny", "hf").fingerprint["backend"] == "hf"
    study.close()


def test_every_word_of_the_shipped_lists_is_a_subject_or_a_request() -> None:
    from esr import prompts

    assert len(set(prompts.lines("label_subjects"))) == len(prompts.lines("label_subjects")) > 400
    assert all("{{subject}}" in line for line in prompts.lines("label_requests"))
    assert len(prompts.lines("label_requests")) % 2 == 0, "both halves of a subject have as many"


def test_labels_with_further_columns_are_read_and_half_rated_ones_are_rated_by_a_judge(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("index_in_sae,label,concreteness,reason\n1,a,90,\n2,,,dead\n3,a,70,\n")
    assert [latent.index for latent in read_labels(tmp_path / "x.csv")] == [1, 3]
    found = Written.of(tmp_path / "x.csv")
    assert found is not None
    assert found.ratings(["a", "b"]) == [70.0, None]
    (tmp_path / "y.csv").write_text("index_in_sae,label,concreteness\n1,a,90\n3,b,\n")
    assert Written.of(tmp_path / "y.csv") is None
    (tmp_path / "z.csv").write_text("index_in_sae,label,concreteness\n1,a,very\n")
    with pytest.raises(SaeError, match="not a number from 0 to 100"):
        Written.of(tmp_path / "z.csv")


def test_the_page_says_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(params.HOME / "scripts"))
    import labels_made

    found = json.loads((params.HOME / "docs" / "benchmarks" / "labels_made.json").read_text())
    assert labels_made.table(found) in (params.HOME / "docs" / "models.md").read_text()
    assert found["concreteness_on_the_list"] == labels_made.on_the_list(), (
        "the rule is another one: python scripts/labels_made.py --docs"
    )
    assert found["about"]["labeller_hash"] == local.HASH, "the local labeller is another one: label again, then the same"
