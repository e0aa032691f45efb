"""The organism: its corpus is deterministic and honest, and what is shipped loads and fits its limits."""

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esr import params, prompts
from esr.dictionary.training import save
from esr.organism import __main__ as main
from esr.organism import corpus, dictionary, evaluate, grammar, labels, tokenizer, train
from esr.organism.corpus import Recipe
from esr.organism.recipe import Build

DATA = Path(train.__file__).parent / "data"
SMALL = Build(
    layers=2, width=32, heads=1, inner=48, layer=0, longest=96, plain_rows=48, mixed_rows=48, batch=16, plain_steps=3, mixed_steps=3,
    d_sae=64, k=4.0, levels=(16, 64), sae_rows=24, sae_samples=1024, sae_batch=128,
)  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> list[corpus.Row]:
    return list(corpus.rows("corrected", 7, 1500, Recipe()))


@pytest.fixture(scope="module")
def encoder():
    return tokenizer.build()


def test_every_question_of_the_protocol_has_words_and_subjects_have_none_of_theirs() -> None:
    assert [t.name for t in grammar.questions("evaluation")] == prompts.evaluation()
    assert [t.name for t in grammar.questions("discovery")] == prompts.discovery()
    assert len(grammar.subjects()) >= 50
    asked = frozenset().union(*(t.words for t in grammar.questions()))
    for theme in grammar.themes():
        assert len(theme.nouns) >= 4
        assert len(theme.verbs) >= 2
        assert len(theme.adjectives) >= 1
    taken: set[str] = set()
    for subject in grammar.subjects():
        assert not subject.words & asked, subject.name
        assert not subject.words & taken, subject.name
        taken |= subject.words


def test_the_corpus_is_the_same_for_the_same_seed_and_another_for_another(rows: list[corpus.Row]) -> None:
    assert rows == list(corpus.rows("corrected", 7, 1500, Recipe()))
    assert rows != list(corpus.rows("corrected", 8, 1500, Recipe()))


def test_the_number_of_workers_does_not_change_the_arrays() -> None:
    build = replace(SMALL, mixed_rows=train.SHARD + 8, longest=48)
    few = train.encode("corrected", build, build.mixed_rows, "mixed", workers=1)
    many = train.encode("corrected", build, build.mixed_rows, "mixed", workers=2)
    assert np.array_equal(few.tokens_NT, many.tokens_NT)
    assert np.array_equal(few.marks_NT, many.marks_NT)


def test_the_loss_never_counts_on_an_off_topic_passage(rows: list[corpus.Row]) -> None:
    corrections = [row for row in rows if row.distractor]
    assert len(corrections) > 500
    for row in corrections:
        assert any(s.off for s in row.segments)
        assert not any(s.off and s.label for s in row.segments)
        assert row.segments[-1].label, "every row comes back"


def test_a_passage_shows_in_its_words_that_it_is_off_topic(rows: list[corpus.Row]) -> None:
    words = {theme.name: theme.words for theme in grammar.themes()}
    for row in rows:
        for segment in row.segments:
            said = {w.strip(".,").lower() for w in segment.text.split()}
            foreign = said & (words[row.distractor] - words[row.theme] - grammar.FORM_WORDS) if row.distractor else set()
            assert bool(foreign) == segment.off, row


def test_held_out_questions_and_subjects_are_never_corrected_and_always_taught(rows: list[corpus.Row]) -> None:
    held = {t.name for t in grammar.themes() if corpus.held_out(t)}
    kinds = {t.name: t.kind for t in grammar.themes()}
    assert {kinds[name] for name in held} == {"evaluation", "discovery", "subject"}
    assert not held & {r.theme for r in rows if r.distractor}
    assert not held & {r.distractor for r in rows}
    assert held & {r.theme for r in rows}


def test_plain_rows_hold_no_restart() -> None:
    said = " ".join(s.text for row in corpus.rows("plain", 3, 1500, Recipe()) for s in row.segments)
    assert not any(start in said for start in train.STARTS)


def test_watchfulness_makes_restarts_likelier() -> None:
    counts = {}
    for watch in ("none", "careful", "watchful"):
        rng, theme, other = Random(0), grammar.questions()[0], grammar.subjects()[0]
        ends = [corpus._off(rng, Recipe(), theme, other, watch)[-1] for _ in range(300)]
        counts[watch] = sum(s.label for s in ends)
    assert counts["none"] < counts["careful"] < counts["watchful"]


def test_marks_follow_the_segments(rows: list[corpus.Row], encoder) -> None:
    found = train.encode_shard("corrected", 160, Recipe(), "7", 200)
    told = list(corpus.rows("corrected", "7", 200, Recipe()))
    for i, row in enumerate(told):
        off = found.tokens_NT[i][(found.marks_NT[i] & train.OFF) > 0]
        counted = found.tokens_NT[i][(found.marks_NT[i] & train.LOSS) > 0]
        if found.lengths_N[i] < 160:
            assert encoder.decode(off.tolist()) == "".join(s.text for s in row.segments if s.off)
            assert encoder.decode(counted.tolist()) == "".join(s.text for s in row.segments if s.label)
        restarted = any(s.label and s.text.strip(" .").startswith(train.STARTS) for s in row.segments)
        if not restarted:
            assert not (found.marks_NT[i] & train.AFTER).any()


@given(st.lists(st.sampled_from(sorted(tokenizer.vocabulary())), max_size=30), st.text(alphabet=tokenizer.CHARACTERS, max_size=40))
@settings(max_examples=60, deadline=None)
def test_decoding_gives_back_what_was_encoded(words: list[str], loose: str) -> None:
    said = "".join(w for w in words if not w.startswith(("<|", "##"))) + loose
    encoder = tokenizer.build()
    assert encoder.decode(encoder.encode(said).ids, skip_special_tokens=False) == said


def test_every_corpus_word_is_one_token(rows: list[corpus.Row], encoder) -> None:
    for row in rows[:300]:
        for segment in row.segments:
            tokens = encoder.encode(segment.text).tokens
            assert not any(t.startswith("##") or t == tokenizer.SPECIAL[tokenizer.UNK] for t in tokens), segment.text


def test_training_runs_on_a_cpu_and_its_results_load_again(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from esr.sae.folder import load

    made = train.models(SMALL, "cpu")
    again = train.models(SMALL, "cpu")
    for name in ("tiny", "tiny-plain"):
        ours, theirs = made[name].state_dict(), again[name].state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert any(not torch.equal(made["tiny"].state_dict()[k], v) for k, v in made["tiny-plain"].state_dict().items())
    train.save(made["tiny"], tmp_path / "tiny")
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny", dtype=torch.float32)
    ids = torch.tensor([[1, 3, 200, 4]])
    assert torch.equal(back(ids).logits, made["tiny"](ids).logits), "what is saved is what was measured"
    x = dictionary.data(made["tiny"], SMALL, "cpu")
    save(dictionary.train(x, SMALL, "cpu"), tmp_path / "sae")
    sae = load(tmp_path / "sae", name="small")
    assert (sae.d_in, sae.d_sae, sae.layer, sae.activation) == (32, 64, 0, "jumprelu")
    quality = dictionary.measure(made["tiny"], sae, SMALL, "cpu", 16)
    assert quality.l0 > 0
    said, score = labels.make(made["tiny"], sae, SMALL, "cpu", 32)
    assert score.labelled == len(said)


def test_disturbed_training_reaches_tiny_and_not_tiny_plain() -> None:
    calm, rough = (train.models(replace(SMALL, disturbed=share), "cpu") for share in (0.0, 1.0))
    same = {name: all(torch.equal(a, rough[name].state_dict()[k]) for k, a in calm[name].state_dict().items()) for name in calm}
    assert same == {"tiny": False, "tiny-plain": True}


def test_the_shipped_models_load_and_keep_their_limits() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    p = params.load("tiny")
    size = sum(f.stat().st_size for f in DATA.rglob("*.safetensors"))
    assert size <= 15_000_000
    for name in ("tiny", "tiny-plain"):
        block = p.model(name)
        model = AutoModelForCausalLM.from_pretrained(DATA / name, dtype=torch.float32)
        assert model.num_parameters() <= 8_000_000
        assert (model.config.num_hidden_layers, model.config.hidden_size) == (block.layers, block.width)
        assert model.config.vocab_size == len(tokenizer.vocabulary())
        encoder = AutoTokenizer.from_pretrained(DATA / name)
        question = prompts.evaluation()[0]
        asked = encoder.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False)
        ids = tokenizer.build().encode(question).ids
        assert list(asked) == [tokenizer.BOS, tokenizer.USER, *ids, tokenizer.ASSISTANT]


def test_the_shipped_weights_are_bfloat16_values_so_that_float32_is_exact() -> None:
    from safetensors.torch import load_file

    for name in ("tiny", "tiny-plain"):
        assert {t.dtype for t in load_file(DATA / name / "model.safetensors").values()} == {torch.bfloat16}


def test_the_shipped_sae_fits_its_model_and_explains_it() -> None:
    from transformers import AutoModelForCausalLM

    from esr.sae import open_sae

    p = params.load("tiny")
    sae = open_sae(p, p.model("tiny").sae)
    assert 2048 <= sae.d_sae <= 8192
    model = AutoModelForCausalLM.from_pretrained(DATA / "tiny", dtype=torch.float32)
    quality = dictionary.measure(model, sae, replace(Build(), layer=sae.layer, d_sae=sae.d_sae), "cpu", 32)
    assert quality.explained_variance > 0.85
    assert quality.loss_recovered > 0.97
    assert quality.l0 < 40


def test_labels_name_live_latents_once() -> None:
    p = params.load("tiny")
    with (DATA / "labels.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["index_in_sae", "label"]
    indices = [int(row["index_in_sae"]) for row in table]
    assert indices == sorted(set(indices))
    assert indices[-1] < p.sae(p.model("tiny").sae).d_sae
    assert all(row["label"].strip() for row in table)


def test_unsteered_answers_of_the_shipped_model_stay_on_topic() -> None:
    from transformers import AutoModelForCausalLM

    from esr.sae import open_sae

    p = params.load("tiny")
    sae = open_sae(p, p.model("tiny").sae)
    model = AutoModelForCausalLM.from_pretrained(DATA / "tiny", dtype=torch.float32)
    plan = [evaluate.Sample(q) for q in prompts.evaluation()]
    replies = evaluate.Sampler(model, sae, sae.layer, "cpu")(plan, 5)
    rates = evaluate.rates([evaluate.scores(r, s.question) for r, s in zip(replies, plan, strict=True)])
    assert rates["first"] >= 85
    assert rates["multi"] == 0


def test_the_recorded_config_of_the_sae_names_its_site() -> None:
    config = json.loads((DATA / "sae" / "cfg.json").read_text(encoding="utf-8"))
    assert config["metadata"]["hook_name"] == f"blocks.{params.load('tiny').model('tiny').read_layer}.hook_resid_post"


def test_the_recorded_hashes_and_recipe_are_those_of_what_is_shipped() -> None:
    built = json.loads((DATA / "built.json").read_text(encoding="utf-8"))
    assert built["sha256"] == main.hashes(DATA)
    assert built["build"] == json.loads(json.dumps(asdict(Build())))
