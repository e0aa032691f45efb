"""Tasks: thin, keyed by what they were given, what they rest on and what they read, and tried again only where that helps."""

import ast
import copy
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flow_runs import place
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esr.count.pair_areas import Areas
from esr.errors import DataError, JudgeBusy, JudgeError, StoreError
from esr.params import HOME, Block, Params
from esr.study import calibrate as calibration
from esr.study import choose as choosing
from esr.study import detect
from esr.study.detect import Activations, Detection, chosen
from esr.study.progress import Progress, Tick
from esr.study.reader import Reader
from esr.study.study import Study
from esr.threshold import Ask
from esr.types import Latent

TASKS = sorted((HOME / "tasks").glob("*.py"))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of our own and the fake engine, for every test of this file."""
    where = place(tmp_path_factory.mktemp("tasks"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in where.env.items():
            patch.setenv(name, value)
        yield where.root


def changed(params: Params, spot: str, value: Any) -> Params:
    """Params with one place changed, as another params.yaml would give them."""
    tree = copy.deepcopy(params.model_dump())
    block = tree
    *parents, last = spot.split("/")
    for part in parents:
        block = block[part]
    assert block[last] != value
    block[last] = value
    return Params.model_validate(tree)


def study_of(here: Path, spot: str = "", value: Any = None) -> Study:
    study = Study.of("tiny", "smoke")
    return study if not spot else Study(changed(study.params, spot, value), "tiny", study.store)


def seen(study: Study) -> Activations:
    """Of a dictionary in which the first latents are silent in matched pairs."""
    rng, n = np.random.default_rng(0), study.params.sae(study.spec.sae).d_sae
    active = rng.random(n)
    return Activations(np.where(np.arange(n) < 40, 0.0, active), np.where(np.arange(n) < 40, 0.0, active), active, active, active)


STEPS: dict[str, Callable[[Any], object]] = {
    "choose.latents": lambda study: choosing.latents(study, 6),
    "calibrate.thresholds": lambda study: calibration.thresholds(study, [Latent(3, "bicycles"), Latent(8, "castles")]),
    "collect.activations": detect.activations,
    "ablate.detectors": lambda study: detect.detectors(study, seen(study)),
    "ablate.controls": lambda study: detect.controls(
        study, seen(study), [3], sets=2, matchings=["matched", "uniform"], first_seed=42
    ),
}


@contextmanager
def recording(params: Params, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Every field of these params that anybody reads meanwhile, by its path."""
    paths: dict[int, str] = {}
    kept: list[Block] = []
    read: set[str] = set()

    def enter(block: Block, path: str) -> None:
        paths[id(block)] = path
        kept.append(block)
        for name in type(block).model_fields:
            inner = block.__dict__[name]
            for key, one in inner.items() if isinstance(inner, dict) else [("", inner)]:
                if isinstance(one, Block):
                    enter(one, "/".join(filter(None, (path, name, key))))

    def getter(self: Block, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if id(self) in paths and name in type(self).model_fields and not isinstance(found, Block):
            read.add(f"{paths[id(self)]}/{name}")
        return found

    def of(self: Params, kind: Any) -> Any:
        made = plain(self, kind)
        enter(made, f"params/experiments/{kind.block}")
        return made

    enter(params, "params")
    plain = Params.of
    with monkeypatch.context() as patch:
        patch.setattr(Params, "of", of)
        patch.setattr(Block, "__getattribute__", getter, raising=False)
        yield read


GROUPS = {"params/models", "params/saes", "params/judges", "params/experiments"}


@pytest.mark.parametrize("step", STEPS)
def test_a_key_holds_what_its_step_reads_no_less_and_no_more(step: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(here)
    reader = Reader(study)
    monkeypatch.setattr(Study, "engine", study.engine)
    _ = study.grader, study.rater, study.weights, study.meaning, study.labels  # handles read params for themselves when they open
    with recording(study.params, monkeypatch) as read:
        STEPS[step](reader)
        facts = {path for path in read if not path.startswith("params/work/")} - GROUPS
    held = {path for path in reader.read if path.startswith("params/")}
    named = {
        "grader": {"params/models/tiny/judge"},
        "rater": {"params/judging/concreteness_judge"},
        "concreteness": {"params/protocol/concreteness", "params/models/tiny/along"},
    }  # held by who it is, and its instructions
    facts -= {path for fact, paths in named.items() if fact in reader.read for path in paths}
    opened = {
        "params/models/tiny/max_model_len",
        "params/preset",
        "params/judging/mode",
        "params/judging/blind",
        "params/judging/max_cost",
        "params/judging/attempts",
    }
    beside = {path for path in facts - held if path in opened or path.startswith(("params/saes/", "params/judges/"))}
    assert facts - held <= beside, "read, and held by no key"
    assert held <= facts, "held by the key, and never read"
    assert held


def test_a_step_that_reads_around_its_notes_is_refused(here: Path) -> None:
    reader = Reader(study_of(here))
    with pytest.raises(AttributeError, match="no key would hold it"):
        _ = reader.budget
    with pytest.raises(AttributeError, match="no key would hold it"):
        _ = reader.params.model_config


def test_a_step_without_a_detector_says_so_as_the_library_does(here: Path) -> None:
    none = Activations(*(np.ones(9) for _ in range(5)))
    with pytest.raises(DataError, match=r"nothing to ablate, exp03 in params\.yaml says what counts"):
        chosen(none, Reader(study_of(here)).params.of(Detection), {})


def after(task: Any, here: Path, spot: str = "", value: Any = None, **given: Any) -> str:
    """The key of a task that was done once, for params with one place changed."""
    from tasks.cache import Notes

    study = study_of(here, spot, value)
    return Notes(task.name, given, task.fn.__module__).key(study)


def done(task: Any, here: Path, **given: Any) -> str:
    """The key under which a task, done now, will be found again."""
    from tasks.cache import Notes

    task.fn(study=SimpleNamespace(study=study_of(here)), **given)
    (key,) = [noted["key"] for noted in Notes(task.name, given, task.fn.__module__).all()]
    return str(key)


LATENTS = [Latent(3, "bicycles"), Latent(8, "castles")]
STALE = {
    "seed": ("seed", 1),
    "target": ("protocol/target", 0.4),
    "search": ("models/tiny/search/upper", 241.0),
    "layer": ("models/tiny/steer_layer", 2),
    "judge": ("models/tiny/judge", "haiku-4.5"),
    "SAE": ("saes/tiny-l3/layer", 2),
}
FRESH = {
    "confidence": ("protocol/confidence", 0.9),
    "degraded": ("protocol/exclude_degraded", True),
    "cost": ("judging/max_cost", 3.0),
    "trials": ("experiments/exp01/trials_per_latent", 3),
    "sets": ("experiments/exp10/sets", 9),
    "shards": ("work/batch", 5),
    "another model": ("models/8b/repetition_penalty", 1.3),
    "detectors": ("experiments/exp03/max_detectors", 3),
}


def test_what_a_search_rests_on_makes_it_stale_and_nothing_else_does(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import calibrate

    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    key = done(calibrate.thresholds, here, latents=LATENTS)
    assert after(calibrate.thresholds, here, latents=LATENTS) == key
    for what, (spot, value) in STALE.items():
        assert after(calibrate.thresholds, here, spot, value, latents=LATENTS) != key, what
    for what, (spot, value) in FRESH.items():
        assert after(calibrate.thresholds, here, spot, value, latents=LATENTS) == key, what
    assert after(calibrate.thresholds, here, latents=LATENTS[:1]) != key


def test_a_reading_on_the_engine_outlives_what_it_did_not_read(here: Path) -> None:
    from tasks import collect

    key = done(collect.activations, here)
    for what in ("confidence", "cost", "trials", "sets", "shards", "detectors"):
        assert after(collect.activations, here, *FRESH[what]) == key, what
    for spot, value in (("experiments/exp03/derangements", 5), ("experiments/exp03/active", 1.0), ("models/tiny/read_layer", 2)):
        assert after(collect.activations, here, spot, value) != key, spot


def test_other_control_sets_are_drawn_when_their_number_or_seed_changes(here: Path) -> None:
    from tasks import ablate

    given = {"seen": seen(study_of(here)), "latents": LATENTS, "sets": 3, "matchings": ("matched",), "first_seed": 42}
    key = done(ablate.controls, here, **given)
    assert after(ablate.controls, here, **given) == key
    assert len({key, *(after(ablate.controls, here, **{**given, **other}) for other in ({"sets": 5}, {"first_seed": 7}))}) == 3


def test_a_calibration_is_named_by_all_that_it_read(here: Path) -> None:
    """Presets that differ in range, judge or layers do not meet in one row of the table."""
    study = study_of(here)
    reader = Reader(study)
    found = calibration.thresholds(reader, LATENTS)
    names = {calibration.row(found[0], "tiny", reader.read)["calibration_id"]}
    shutil.copytree(HOME / "esr/organism/data/sae", here / "sae")
    others = {"penalty": ("models/tiny/repetition_penalty", 1.2), "SAE": ("saes/tiny-l3/repo", str(here / "sae"))}
    for spot, value in (*(STALE[what] for what in ("seed", "target", "search")), *others.values()):
        other = Reader(study_of(here, spot, value))
        calibration.thresholds(other, LATENTS)
        names.add(calibration.row(found[0], "tiny", other.read)["calibration_id"])
    assert len(names) == 6
    narrow = Reader(study_of(here, *FRESH["confidence"]))
    calibration.thresholds(narrow, LATENTS)
    assert calibration.row(found[0], "tiny", narrow.read) == calibration.row(found[0], "tiny", reader.read)


def test_a_task_computes_nothing_that_was_computed_under_the_same_reads(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import choose
    from tasks.cache import Notes

    key = done(choose.latents, here, n=6)
    relabelled = here / "labels.csv"
    text = relabelled.read_text()
    try:
        relabelled.write_text(text.replace("\n", " and others\n").replace("label and others", "label", 1))
        assert after(choose.latents, here, n=6) != key
    finally:
        relabelled.write_text(text)
    assert after(choose.latents, here, n=6) == key
    notes = Notes("choose.latents", {"n": 6}, "tasks.choose")
    notes.file.write_text("[")
    assert notes.key(study_of(here)) == after(choose.latents, here, n=6)


def test_what_a_step_rests_on_is_found_in_its_imports() -> None:
    from tasks import code

    found = code.closure("tasks.calibrate")
    assert {"esr.study.calibrate", "esr.threshold.curve", "esr.study.plan", "esr.prompts", "esr.types"} <= found
    assert not [name for name in found if name.startswith(("esr.show", "esr.engine.vllm", "esr.study.detect", "esr.reference"))]
    assert "esr.study.detect" in code.closure("tasks.collect")


def test_a_changed_line_changes_the_code_and_a_changed_comment_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import code

    monkeypatch.setattr(code, "ROOT", "made_up")
    package = tmp_path / "made_up"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "prompt.txt").write_text("one")
    (package / "inner.py").write_text('"""Said."""\nX = 1\n')
    (package / "outer.py").write_text(
        "from typing import TYPE_CHECKING\nfrom made_up import inner\nif TYPE_CHECKING:\n    import made_up.later\n"
    )
    (package / "later.py").write_text("Y = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def now() -> str:
        for cached in (code.fingerprint, code.closure, code.imported, code.source, code._spec):
            cached.cache_clear()
        return code.fingerprint("made_up.outer")

    before = now()
    (package / "inner.py").write_text('"""Said otherwise."""\n# why\nX = 1\n')
    (package / "later.py").write_text("Y = 2\n")
    assert now() == before
    (package / "inner.py").write_text("X = 2\n")
    changed_line = now()
    (package / "prompt.txt").write_text("two")
    assert len({before, changed_line, now()}) == 3
    monkeypatch.undo()
    for cached in (code.fingerprint, code.closure, code.imported, code.source, code._spec):
        cached.cache_clear()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text().filter(lambda k: k != "!"), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    from tasks.values import Values

    back = Values().loads(Values().dumps(value))
    assert back == value
    assert type(back) is type(value)


def test_dataclasses_named_tuples_and_arrays_come_back_typed() -> None:
    from tasks.values import Values

    given = {
        "a": [Latent(1, "x")],
        "b": Ask(1.0, 0.5, 3),
        "c": Activations(*(np.arange(4, dtype=np.float32) for _ in range(5)), Areas(*np.ones((3, 4)))),
    }
    back = Values().loads(Values().dumps(given))
    assert back["a"] == given["a"]
    assert back["b"] == given["b"]
    assert type(back["b"]) is Ask
    assert type(back["c"].held_out) is Areas
    assert np.array_equal(back["c"].matched_mean, given["c"].matched_mean)
    assert back["c"].matched_mean.dtype == np.float32
    for wrong in ({1, 2}, object(), SimpleNamespace()):
        with pytest.raises(TypeError, match="a task cannot return"):
            Values().dumps(wrong)


@pytest.mark.parametrize(("error", "again"), [(JudgeBusy, True), (JudgeError, False), (StoreError, False), (ValueError, False)])
def test_only_a_busy_judge_is_asked_again(error: type[Exception], again: bool) -> None:
    from prefect.states import Failed

    from tasks import judge

    def result() -> Any:
        raise error("no")

    state = SimpleNamespace(result=result, type=Failed().type)
    assert judge.is_busy(None, None, state) is again  # type: ignore[arg-type]  # only the state is looked at


def test_a_task_is_a_decorator_and_one_call() -> None:
    found = 0
    for path in TASKS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any(ast.unparse(d).startswith(("task", "step")) for d in node.decorator_list):
                found += 1
                assert (node.end_lineno or 0) - node.body[0].lineno + 1 <= 10, f"{path.name}: {node.name} is no thin task"
                assert not any(isinstance(inner, ast.While | ast.Try) for inner in ast.walk(node)), f"{path.name}: {node.name}"
    assert found >= 12


def test_flows_hold_no_number_no_path_and_no_model() -> None:
    for path in (HOME / "flows").glob("exp*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == path.stem:
                for inner in ast.walk(node):
                    if (
                        isinstance(inner, ast.Constant)
                        and isinstance(inner.value, int | float)
                        and not isinstance(inner.value, bool)
                    ):
                        pytest.fail(f"{path.name} line {inner.lineno} holds the number {inner.value}; params.yaml is its place")
                    assert not isinstance(inner, ast.If), f"{path.name} line {inner.lineno} branches"


def test_progress_counts_what_is_left() -> None:
    progress = Progress()
    progress.expect("steer", 10)
    progress.tick(Tick("steer", 4, stored=4))
    assert progress.stages()[0].remaining is None
    progress.tick(Tick("steer", 2, missing=1, cost=0.5))
    (stage,) = progress.stages()
    assert (stage.done, stage.stored, stage.missing, stage.total) == (6, 4, 1, 10)
    assert stage.remaining is not None
    assert progress.cost == 0.5
    progress.tick(Tick("steer", 1, cost=None))
    assert progress.cost is None


def test_a_steps_values_lie_in_the_store_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import calibrate

    for name in "ab":
        monkeypatch.setenv("ESR_STORE", str(tmp_path / name))
        assert calibrate.thresholds.result_storage == tmp_path / name / "cache"
        assert calibrate.thresholds.with_options(retries=1).result_storage == tmp_path / name / "cache"
