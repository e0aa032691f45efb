"""Regions by a provider's model over HTTP, beside those by rule, and how far both agree."""

from pathlib import Path

import pytest
from judge_server import Provider
from judge_setup import KEY, opened, params_at

from esr.judge.locate import Span
from esr.params import load
from esr.show.seen import sources
from esr.store import Store
from esr.study import episodes, regions
from esr.study.regions import Marked
from esr.study.study import Study
from esr.types import Arm, Latent, Member, Op, Reply, Trial

TEXT = "Grind the beans with care. The castle has a moat around it. Wait, that is not right. Pour the water over the ground beans. Stir it well."


def test_what_a_judge_quotes_is_located_and_held_against_the_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ESR_LIMITS", str(tmp_path / "limits"))
    monkeypatch.setenv("ESR_ENGINE", "fake")
    server = Provider().start()
    try:
        params = load("tiny")
        study = Study(params, "tiny", Store(tmp_path / "store"))
        member = Member(
            arm=Arm("exp09", "episodes"), model="tiny", scale="full", trial=Trial(
                model="tiny", weights=study.weights, meaning="", prompt="How do you make coffee?", prompt_format="clean", seed=1,
                sampling=params.sampling("tiny"), ops=(Op("add", 3, 9.0, 3, "tiny-l3"),), latent=Latent(3, "castles"), boost=9.0,
            ),
        )  # fmt: skip
        study.store.put_members([member])
        ids = study.engine.render("", prefill=TEXT)[len(study.engine.render("")) :]
        n_prompt = len(study.engine.render(member.trial.prompt))
        study.store.put_replies(
            [Reply(trial_id=member.trial.id, text=TEXT, token_ids=ids, n_prompt_tokens=n_prompt, finish_reason="stop", applied=9)]
        )
        assert study.store.texts([member.trial.id]) == {member.trial.id: TEXT}
        judge = opened(params_at(server.url, "sonnet-4.5"), "sonnet-4.5", store=tmp_path)
        quoted = regions.asked(study.store, [member], judge)
        (one,) = quoted
        assert one.source.startswith("judge/sonnet-4.5/")
        assert [TEXT[low:high].strip() for _, low, high in one.parts][1] == "Wait, that is not right."
        cut = TEXT.index("Wait")
        parts = episodes.by_rule(TEXT, [Span(0, cut - 1), Span(cut, len(TEXT))])
        assert parts is not None
        spans = (("off-topic", parts.off), ("correction", parts.correction), ("on-topic", parts.on))
        ruled = Marked(member.trial.id, "rule/lexical/x", tuple((kind, span.start, span.end) for kind, span in spans))
        assert regions.mark(study, [*quoted, ruled]) == 2
        rows = study.store.sql("select * from regions order by all").to_pylist()
        prompts = {member.trial.id: n_prompt}
        told = regions.agreement(sources(rows, "rule/", prompts), sources(rows, "judge/", prompts))
        assert told is not None
        assert (told.n, told.within_five, told.apart_median) == (1, 1.0, 0.0)
        assert told.overlap_mean == 1.0
        server.schedule.plan = ["not-json", "not-json"]
        assert (
            regions.asked(
                Store(tmp_path / "store"),
                [member],
                opened(params_at(server.url, "sonnet-4.5"), "sonnet-4.5", store=tmp_path / "other"),
            )
            == []
        )
        judge.close()
    finally:
        server.stop()
