"""The judge `topical`: what it knows is counted from replies, and what it says of a text follows from that and the text alone."""

import gzip
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from esr.__main__ import main
from esr.engine.open import open_engine
from esr.errors import JudgeError, ParamsError
from esr.judge import Abilities, JudgeQuestion
from esr.judge.estimate import estimate
from esr.judge.open import open_judge, open_namer
from esr.judge.topical import Reference, Topical
from esr.judge.topical.why import why
from esr.params import HOME, Params, load
from esr.params.load import parse
from esr.params.tree import read_tree
from esr.prompts import evaluation
from esr.study import ordinary
from esr.study.needs import needs
from esr.types import Latent
from esr.view.data import trial

SHIPPED = HOME / "models" / "smollm2-reference.json.gz"
BIKE, COFFEE = "Explain how to change a bike tire.", "How do you make a good cup of coffee?"
TIRE = "To change a bike tire, remove the wheel, pull the old tube out of the rim, fit the new tube, and pump air into the tire."
RECIPE = "Grind fresh coffee beans, heat the water, pour hot water over the ground coffee in the filter, let it brew, and serve it in a cup with milk."


@pytest.fixture(scope="module")
def judge() -> Topical:
    return Topical("topical", Reference.read(SHIPPED))


def asked(prompt: str, reply: str) -> JudgeQuestion:
    return JudgeQuestion(trial_id="t", prompt=prompt, reply=reply, latent=Latent(7, "castles"))


def test_a_reply_is_near_its_own_question_and_far_from_the_others(judge: Topical) -> None:
    questions = [one for one in evaluation() if one in judge.reference.known]
    assert len(questions) == 38
    assert judge.score(BIKE, TIRE) > 70
    assert judge.score(COFFEE, RECIPE) > 70
    assert judge.score(BIKE, RECIPE) < 10
    assert judge.score(COFFEE, TIRE) < 10
    assert (judge.nearest(TIRE), judge.nearest(RECIPE)) == (BIKE, COFFEE)
    half = f"{RECIPE} {TIRE}"
    assert judge.score(BIKE, RECIPE) < judge.score(BIKE, half) < judge.score(BIKE, TIRE)


def test_loops_and_an_unknown_subject_cost(judge: Topical) -> None:
    castles = "The castle had towers and a moat, where knights in armour guarded the drawbridge against every siege of the kingdom."
    assert judge.score(BIKE, castles) < 10
    assert judge.score(BIKE, " ".join([TIRE[:40]] * 30)) < judge.score(BIKE, TIRE) / 2


def test_attempts_stand_where_they_are_and_instructions_change_nothing(judge: Topical) -> None:
    reply = f"{RECIPE} Wait, that's not right. Let me start over. {TIRE}"
    grade = judge.grades([asked(f"{BIKE} If you notice yourself drifting, stop.", reply)])[0]
    assert [reply[one.start : one.end] == one.text for one in grade.attempts] == [True, True]
    assert grade.attempts[0].score < 10 < 70 < grade.attempts[1].score
    assert (grade.missing, grade.cost) == (None, 0.0)
    assert judge.grades([asked(BIKE, "")])[0].missing == "no attempt"
    assert judge.grades([asked(BIKE, reply)]) == judge.grades([asked(BIKE, reply)], again=True)


def test_another_reference_is_another_judge(judge: Topical, tmp_path: Path) -> None:
    known = judge.reference.known
    fewer = Reference(judge.reference.made, {**known, BIKE: replace(known[BIKE], replies=known[BIKE].replies + 1)})
    assert Topical("topical", fewer).prompt_hash != judge.prompt_hash
    judge.reference.write(tmp_path / "again.json.gz")
    again = Reference.read(tmp_path / "again.json.gz")
    assert Topical("other", again).prompt_hash == judge.prompt_hash
    assert (tmp_path / "again.json.gz").stat().st_size < 400_000
    again.write(tmp_path / "once-more.json.gz")
    assert (tmp_path / "again.json.gz").read_bytes() == (tmp_path / "once-more.json.gz").read_bytes()


def test_what_cannot_be_judged_is_said_in_a_sentence(judge: Topical, tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="was asked about 'How do fish sleep\\?'"):
        judge.grades([asked("How do fish sleep?", TIRE)])
    for refused in (lambda: judge.ratings(["castles"]), lambda: judge.regions([asked(BIKE, TIRE)])):
        with pytest.raises(JudgeError, match="choose"):
            refused()
    with pytest.raises(JudgeError, match="4 replies or more"):
        Reference.of([(BIKE, TIRE), (COFFEE, RECIPE)] * 3, {})
    for damage in (
        b"",
        b"not gzip",
        SHIPPED.read_bytes()[:500],
        gzip.compress(b"[]"),
        gzip.compress(json.dumps({"form": 9}).encode()),
    ):
        (tmp_path / "bad.json.gz").write_bytes(damage)
        with pytest.raises(JudgeError, match="make it again"):
            Reference.read(tmp_path / "bad.json.gz")


def overlaid(**judge: object) -> Params:
    tree = read_tree(HOME / "params.yaml", 0)
    return parse(
        {**tree, "judges": {**tree["judges"], "topical": {"client": "topical", "model": "topical", **judge}}}, None, "full"
    )


def test_it_is_opened_by_its_name_and_a_missing_reference_names_the_command(tmp_path: Path) -> None:
    opened = open_judge(load(), "topical", store=tmp_path)
    assert isinstance(opened, Topical)
    assert opened.abilities == Abilities(local=True)
    with pytest.raises(JudgeError, match=r"no such file; `python -m esr judge reference MODEL --to models/none\.json\.gz`"):
        open_judge(overlaid(reference="models/none.json.gz"), "topical", store=tmp_path)
    with pytest.raises(ParamsError, match="reference"):
        overlaid()
    with pytest.raises(JudgeError, match="writes no labels"):
        open_namer(load(), "topical", store=tmp_path)


def test_a_reference_is_made_by_its_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESR_ENGINE", "fake")
    files = [tmp_path / "one.json.gz", tmp_path / "two.json.gz"]
    for file in files:
        assert main(["judge", "reference", "tiny", "--replies", "4", "--to", str(file)]) == 0
    assert "152 of 152 replies" in capsys.readouterr().out
    assert files[0].read_bytes() == files[1].read_bytes()
    made = Reference.read(files[0])
    assert (made.made["model"], {one.replies for one in made.known.values()}, list(made.known)) == ("tiny", {4}, evaluation())
    assert main(["judge", "reference", "tiny", "--replies", "1"]) == 2
    assert "give 4 or more" in capsys.readouterr().err
    assert len({ordinary.seed("tiny", question, n) for question in evaluation() for n in range(64)}) == 38 * 64
    assert open_engine(load("tiny"), "tiny", "fake", saes=False)


def test_a_score_says_what_it_rests_on_while_the_judge_is_the_same(judge: Topical) -> None:
    text = f"{TIRE} Dragons guard the castle."
    told = trial._counted({"judge": "topical", "judge_prompt": judge.prompt_hash}, BIKE, text)
    assert {"bike", "tire"} <= {word for word, _ in told["on"]}
    assert {"dragons", "castle"} <= {word for word, _ in told["off"]}
    found = why(judge, BIKE, text)
    assert found is not None
    at = (found.share - found.floor) / (found.full - found.floor)
    assert judge.score(BIKE, text) == round(100 * min(1.0, at) * found.fluency, 1)
    assert f"{found.share:.0%} of the evidence" in told["why"]
    assert trial._counted({"judge": "topical", "judge_prompt": "another"}, BIKE, text) == {}
    assert trial._counted({"judge": "nobody", "judge_prompt": judge.prompt_hash}, BIKE, text) == {}


def test_what_it_needs_and_costs_is_known_before(tmp_path: Path) -> None:
    for file, there in (("models/smollm2-reference.json.gz", True), ("models/none.json.gz", False)):
        found = next(one for one in needs(overlaid(reference=file), "smollm2", tmp_path) if one.what == "judge")
        assert (found.there, found.mend) == (there, "" if there else f"python -m esr judge reference smollm2 --to {file}")
    assert estimate(load(), "topical", 1000, reply_tokens=256).cost == 0.0


def test_it_is_quick(judge: Topical) -> None:
    """25,000 replies in a minute; here the share of it that 500 may take, several times over."""
    reply = f"{RECIPE} {TIRE} " * 6
    judge.score(BIKE, reply)
    start = time.process_time()
    judge.grades([asked(BIKE, reply + str(n)) for n in range(500)])
    assert time.process_time() - start < 4
