"""Rows for tests of the store: members, replies and grades of a few words."""

from esr.store import Store
from esr.types import Arm, Attempt, Grade, Latent, Member, Op, Reply, Sampling, Trial

PLAIN = Sampling(temperature=0.6, top_p=1.0, repetition_penalty=1.1, max_tokens=64)


def member(i: int, *, arm: str = "baseline", experiment: str = "exp01", boost: float = 3.0, scale: str = "smoke") -> Member:
    latent = Latent(i // 2, f"label {i // 2}")
    trial = Trial(
        model="tiny", weights="w", meaning="", prompt=f"question {i}", prompt_format="clean", seed=i, sampling=PLAIN, question=f"question {i}",
        ops=(Op("add", latent.index, boost, 3, "s"),) if boost else (), latent=latent, boost=boost, threshold=3.0,
    )  # fmt: skip
    return Member(arm=Arm(experiment, arm), model="tiny", scale=scale, trial=trial)


def reply(m: Member, text: str = "fine words", finish: str = "stop") -> Reply:
    return Reply(trial_id=m.trial.id, text=text, token_ids=(1, 2), n_prompt_tokens=3, finish_reason=finish, applied=2)


def grade(m: Member, *scores: float, missing: str | None = None, judge: str = "lexical", prompt: str = "p") -> Grade:
    attempts = tuple(Attempt(s, f"attempt {i}", i, i + 1) for i, s in enumerate(scores))
    return Grade(
        trial_id=m.trial.id, latent=m.trial.latent.index, judge=judge, judge_prompt=prompt, attempts=attempts, missing=missing
    )


def one(store: Store, query: str) -> dict[str, object]:
    rows = store.sql(query).to_pylist()
    assert len(rows) == 1, rows
    return rows[0]
