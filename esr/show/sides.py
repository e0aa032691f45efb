"""The sides of a comparison by their names: two arms, models, judges, presets, runs or plans, each as planned trials with their verdicts.

A run, a plan and a preset (its newest run) are shown with each arm's plan as it stood when they were done, also where the arm was
planned anew since.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from esr.errors import DataError
from esr.show.lacking import NO_REPLY, NOT_ASKED, ungraded
from esr.store import Ask, Store

KINDS = ("arm", "model", "judge", "preset", "run", "plan")
"""What two names may be names of, in the order in which that is tried."""
SHORT = 4
"""Characters of an id that are enough to be taken for one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is held against what."""

    a: str
    b: str
    arm: str = ""
    """Of models, judges and presets: in this arm, experiment 1's baseline when left out; of runs: in this arm alone."""
    model: str = ""
    judge: str = ""
    scale: str = "full"


@dataclass(frozen=True, slots=True)
class Side:
    name: str
    told: str
    """It in words."""
    arm: str
    model: str
    judge: str
    scale: str
    as_of: datetime | None = None
    """UTC. None: as the plans stand now."""
    run: Mapping[str, Any] | None = None
    """The row of `runs`, its manifest read."""


class Names:
    """What a store has names of."""

    def __init__(self, store: Store, scale: str) -> None:
        self.store, self.scale = store, scale

    @cached_property
    def arms(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.store.sql(
            "select distinct experiment || '/' || arm as arm, model, judge from summary where judge is not null and scale = ?",
            [self.scale],
        ).to_pylist()
        return rows

    @cached_property
    def runs(self) -> list[dict[str, Any]]:
        """Newest first."""
        rows = self.store.sql("select * from runs order by started_at desc nulls last, run_id").to_pylist()
        return [{**row, "manifest": json.loads(row["manifest"] or "{}")} for row in rows]

    @cached_property
    def plans(self) -> list[dict[str, Any]]:
        """Newest first."""
        query = "select plan, experiment || '/' || arm as arm, model, scale, max(recorded_at) as recorded_at from plans group by all order by recorded_at desc"
        rows: list[dict[str, Any]] = self.store.sql(query).to_pylist()
        return rows

    def preset(self, name: str) -> list[dict[str, Any]]:
        return [run for run in self.runs if run["scale"] == self.scale and _preset(run) == name]

    def run(self, name: str) -> list[dict[str, Any]]:
        called = [run for run in self.runs if run["name"] == name]
        return called or [run for run in self.runs if len(name) >= SHORT and run["run_id"].startswith(name)]

    def plan(self, name: str) -> list[dict[str, Any]]:
        return [plan for plan in self.plans if len(name) >= SHORT and plan["plan"].startswith(name)]

    def of(self, kind: str, name: str) -> bool:
        if kind in ("arm", "model", "judge"):
            return any(row[kind] == name for row in self.arms)
        return bool({"preset": self.preset, "run": self.run, "plan": self.plan}[kind](name))

    def listed(self) -> str:
        some = {kind: sorted({str(row[kind]) for row in self.arms}) for kind in ("arm", "model", "judge")}
        some |= {"preset": sorted({p for run in self.runs if (p := _preset(run))}), "run": [run["run_id"][:8] for run in self.runs]}
        return "; ".join(f"{kind}s: {', '.join(names[:12])}" for kind, names in some.items() if names) or "there are none yet"


def _preset(run: Mapping[str, Any]) -> str:
    return str(((run["manifest"].get("params") or {}).get("content") or {}).get("preset") or "")


def sides(store: Store, asked: Asked) -> tuple[str, list[tuple[Side, Side]]]:
    """What both names are names of, and the arms to hold against each other: one pair, or of two runs each arm that both have."""
    names = Names(store, asked.scale)
    kind = next((kind for kind in KINDS if names.of(kind, asked.a) and names.of(kind, asked.b)), None)
    if kind is None:
        raise DataError(
            f"{asked.a!r} and {asked.b!r} are not two {'s, two '.join(KINDS[:-1])}s or two plans with judged trials at scale {asked.scale!r}; {names.listed()}"
        )
    a, b = (_sides(names, asked, kind, name) for name in (asked.a, asked.b))
    if len(a) == len(b) == 1:
        return kind, [(next(iter(a.values())), next(iter(b.values())))]
    common = [(a[arm], b[arm]) for arm in a if arm in b]
    if not common:
        raise DataError(
            f"{asked.a!r} has the arms {', '.join(a)} and {asked.b!r} {', '.join(b)}, none in common; hold two arms against each other instead"
        )
    return kind, common


def _sides(names: Names, asked: Asked, kind: str, name: str) -> dict[str, Side]:
    """By arm."""
    if kind == "run":
        return _of_run(names, asked, name, _the(names.run(name), "run", name))
    if kind == "preset":
        arm = asked.arm or "exp01/baseline"
        some = [run for run in names.preset(name) if run["experiment"] == arm.split("/")[0]]
        some = [run for run in some if asked.model in ("", run["model"]) and asked.judge in ("", run["judge"])]
        _one("model", name, {run["model"] for run in some})
        _one("judge", name, {run["judge"] for run in some})
        return _of_run(names, replace(asked, arm=arm), name, some[0]) if some else _nothing(asked, arm, name)
    if kind == "plan":
        plan = _the(names.plan(name), "plan", name)
        judge = asked.judge or _judge(names.store, plan["arm"], plan["model"], plan["scale"], plan["recorded_at"], name)
        told = f"plan {plan['plan'][:8]} of {plan['arm']} on {plan['model']}, {plan['recorded_at']:%Y-%m-%d %H:%M}"
        return {plan["arm"]: Side(name, told, plan["arm"], plan["model"], judge, plan["scale"], plan["recorded_at"])}
    given = {"arm": asked.arm or "exp01/baseline", "model": asked.model, "judge": asked.judge} | {kind: name}
    rows = [row for row in names.arms if all(row[key] == value for key, value in given.items() if value)]
    if not rows:
        return _nothing(asked, given["arm"], name)
    found = {key: given[key] or _one(key, name, {row[key] for row in rows}) for key in ("model", "judge")}
    return {given["arm"]: Side(name, f"{kind} {name}", given["arm"], found["model"], found["judge"], asked.scale)}


def _nothing(asked: Asked, arm: str, name: str) -> dict[str, Side]:
    given = {"arm": arm, "model": asked.model, "judge": asked.judge}
    of = ", ".join(f"{key} {value!r}" for key, value in given.items() if value)
    raise DataError(
        f'nothing of {name!r} was judged of {of} at scale {asked.scale!r}; `python -m esr sql "from summary"` shows what there is'
    )


def _one(key: str, name: str, found: set[str]) -> str:
    if len(found) > 1:
        raise DataError(f"{name!r} has outcomes of several {key}s: {', '.join(sorted(found))}; choose one with --{key}")
    return next(iter(found), "")


def _the(rows: Sequence[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    ids = {row.get("run_id") or row["plan"] for row in rows}
    if len(ids) > 1:
        raise DataError(f"{len(ids)} {kind}s have an id that begins with {name!r}; give more of it")
    return rows[0]


def _of_run(names: Names, asked: Asked, name: str, run: dict[str, Any]) -> dict[str, Side]:
    """The arms of its experiment as they stood when it ended."""
    at = _end(names, run)
    arms = names.store.sql(
        "select arm from current_arms where experiment = ? and model = ? and scale = ? order by place, arm",
        [run["experiment"], run["model"], run["scale"]],
        as_of=at,
    )
    keys = [f"{run['experiment']}/{arm}" for arm in arms["arm"].to_pylist()]
    called = f" ({run['name']})" if run["name"] else ""
    preset = f", preset {name}" if name == _preset(run) else ""
    told = f"run {run['run_id'][:8]}{called} of {run['experiment']} on {run['model']}, {run['started_at']:%Y-%m-%d %H:%M}{preset}"
    if not keys or (asked.arm and asked.arm not in keys):
        raise DataError(
            f"{told}, planned no trials{f' of {asked.arm!r}' if keys else ''}; it has the arms {', '.join(keys) or 'none'}"
        )
    judge = asked.judge or run["judge"] or _judge(names.store, keys[0], run["model"], run["scale"], at, name)
    some = [asked.arm] if asked.arm else keys
    return {arm: Side(name, told, arm, run["model"], judge, run["scale"], at, run) for arm in some}


def _end(names: Names, run: Mapping[str, Any]) -> datetime | None:
    """When it was recorded as done; of one that never was, just before the next run of the same began; None: it is the last."""
    if run["finished_at"] is not None:
        ended: datetime = max(filter(None, (run["finished_at"], run["recorded_at"])))
        return ended
    same = [other for other in names.runs if all(other[k] == run[k] for k in ("experiment", "model", "scale"))]
    later = [
        other["started_at"]
        for other in same
        if other["started_at"] and run["started_at"] and other["started_at"] > run["started_at"]
    ]
    return min(later) - timedelta(microseconds=1) if later else None


def _judge(store: Store, arm: str, model: str, scale: str, at: datetime | None, name: str) -> str:
    rows = store.sql(
        "select distinct judge from judged where experiment || '/' || arm = ? and model = ? and scale = ?",
        [arm, model, scale],
        as_of=at,
    )
    return _one("judge", name, set(rows["judge"].to_pylist())) or _unjudged(name)


def _unjudged(name: str) -> str:
    raise DataError(f"no trial of {name!r} has met a judge; `python -m esr rejudge JUDGE` asks one")


TRIALS = f"""
with planned as (
    select m.trial_id, m.latent, m.latent_label, m.question, m.boost, t.seed, r.text, r.degraded, r.trial_id is not null as replied
    from current_members m join trials t using (trial_id) left join replies r using (trial_id)
    where m.experiment = ? and m.arm = ? and m.model = ? and m.scale = ?
)
select p.* exclude (replied), o.n_attempts, o.first_score, o.multi, o.corrected, o.gain, o.scores,
    list_transform(j.located, lambda a: a."start") as begins,
    case when o.n_attempts is not null then '' when j.trial_id is not null then 'not graded: ' || {ungraded("j")}
        when p.replied then '{NOT_ASKED}' else '{NO_REPLY}' end as lacks
from planned p
left join (select * from judged where experiment = ? and arm = ? and model = ? and scale = ? and judge = ?) j using (trial_id, latent)
left join (select * from outcomes where experiment = ? and arm = ? and model = ? and scale = ? and judge = ?) o using (trial_id, latent)
order by p.latent, p.question, p.seed
"""


def trials(ask: Ask, side: Side) -> list[dict[str, Any]]:
    """Every planned trial of a side: its outcome, or what it lacks."""
    arm = [*side.arm.split("/", 1), side.model, side.scale]
    return [dict(row) for row in ask(TRIALS, [*arm, *arm, side.judge, *arm, side.judge]).to_pylist()]
