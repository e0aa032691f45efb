"""A synthetic folder of the authors' result files: every kind of file, every quirk, and what it must come to.

What a trial is meant to hold is decided first, as a list of scores or as invalid, and noted in `expected`; then it is written
down in one of the shapes that the authors' files have. The numbers are worked out from the intentions by plain arithmetic
and never from the files.
"""

import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

HAIKU = "claude_haiku_4_5_20251001_judge"
LLAMA70 = "Meta-Llama-3.3-70B-Instruct"
LLAMA8 = "Meta-Llama-3.1-8B-Instruct"
GEMMA9 = "gemma-2-9b-res-16k-layer-26"
GEMMA27 = "gemma-2-27b-res-131k-layer-22"

QUESTIONS = ["Explain how to add two fractions.", "How do you make a good cup of coffee?", "Explain how to darn a hole in a sock."]

Key = tuple[str, str, str, str]
"""Experiment, model, arm, judge."""


@dataclass
class Expected:
    planned: int = 0
    graded: list[list[Fraction]] = field(default_factory=list)
    degraded: int = 0

    def row(self) -> dict[str, float | int | None]:
        n = len(self.graded)
        multi = [scores for scores in self.graded if len(scores) > 1]
        better = [scores for scores in multi if scores[-1] > scores[0]]
        gains = [scores[-1] - scores[0] for scores in multi]
        return {
            "n_planned": self.planned,
            "n_graded": n,
            "n_missing": self.planned - n,
            "n_multi": len(multi),
            "n_corrected": len(better),
            "n_degraded": self.degraded,
            "first_score_mean": ratio(sum(scores[0] for scores in self.graded), n),
            "multi_attempt_rate": ratio(len(multi), n),
            "esr_rate": ratio(len(better), n),
            "improvement_rate": ratio(len(better), len(multi)),
            "gain_all_mean": ratio(sum(gains), n),
            "gain_multi_mean": ratio(sum(gains), len(multi)),
        }


def ratio(part: Fraction | int, whole: int) -> float | None:
    return float(Fraction(part) / whole) if whole else None


class AuthorsFolder:
    def __init__(self, root: Path, seed: int = 1) -> None:
        self.root, self.rng = root, random.Random(seed)
        self.expected: dict[Key, Expected] = defaultdict(Expected)
        self.stamp = 0

    def when(self) -> str:
        self.stamp += 1
        return f"20260127_{self.stamp:06d}"

    def write(self, name: str, tree: object, judge: str = HAIKU) -> Path:
        path = self.root / "experiment_results" / judge / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(tree, indent=4), encoding="utf-8")
        return path

    def intention(self) -> list[Fraction] | None:
        """Scores of the attempts that count; None: no valid grade."""
        rng = self.rng
        if rng.random() < 0.15:
            return None
        n = rng.choice([1, 1, 1, 2, 2, 3])
        return [Fraction(rng.choice([0, 5, 20, 30, 30, 62.5, 75, 85, 85, 100])) for _ in range(n)]

    def score(self, scores: list[Fraction] | None) -> object:
        """One of the shapes in which the files hold these scores."""
        rng = self.rng
        if scores is None:
            return rng.choice([
                {"raw_response": "?", "error": "Expecting value"},
                {"raw_response": None, "attempts": []},
                {"raw_response": "x", "attempts": [{"attempt_text": "a", "score": None}]},
                {"raw_response": "x", "attempts": [{"attempt_text": "a"}]},
                {"raw_response": "x"},
                {"raw_response": "x", "attempts": [{"attempt_text": "a", "score": "N/A"}]},
                {"raw_response": "x", "attempts": [{"attempt_text": "a", "score": True}]},
                None,
            ])  # fmt: skip
        attempts: list[dict[str, object]] = []
        for value in scores:
            plain = int(value) if value.denominator == 1 else float(value)
            attempts.append({"attempt_text": "some attempt", "score": rng.choice([plain, float(plain), str(plain), f" {plain} "])})
        while rng.random() < 0.2:
            attempts.insert(rng.randrange(len(attempts) + 1), {"attempt_text": "dropped", "score": None})
        return {"raw_response": "<json>…</json>", "attempts": attempts, "extra": 1}

    def trial(self, expect: Expected, latent: int, boost: float, prompt: str, *, valid: bool = True) -> dict[str, object]:
        scores = self.intention() if valid else None
        shape = self.score(scores if scores is not None else self.intention() if not valid else None)
        error = None
        if valid and scores is not None and self.rng.random() < 0.1:
            error, scores = "CUDA error", None
        degraded = self.rng.random() < 0.2
        response = "so well " + ("no no no no no end" if degraded else "a a a a a no no no no end")
        expect.planned += 1
        if scores is not None:
            expect.graded.append(scores)
            expect.degraded += degraded
        return {
            "prompt": prompt,
            "feature_index_in_sae": latent,
            "feature_label": f"label {latent}",
            "threshold": boost,
            "seed": self.rng.randrange(1_000_001),
            "response": response,
            "score": shape,
            "error": error,
        }

    def feature(
        self, expect: Expected, latent: int, n: int = 5, boosts: list[float] | None = None, suffix: str = ""
    ) -> dict[str, object]:
        threshold = self.rng.choice([7.5, 9.921, 12])
        fails = self.rng.random() < 0.1
        if fails and self.rng.random() < 0.5:
            return {
                "feature_index_in_sae": latent,
                "feature_label": f"label {latent}",
                "threshold": None,
                "trials": [],
                "error": "judge failed",
            }
        trials = []
        for i in range(n):
            boost = boosts[i % len(boosts)] if boosts else threshold
            prompt = self.rng.choice(QUESTIONS) + suffix
            trials.append(self.trial(expect, latent, boost, prompt, valid=not fails))
        feature = {"feature_index_in_sae": latent, "feature_label": f"label {latent}", "threshold": threshold, "trials": trials}
        return feature | {"error": "failed late" if fails else None}

    def config(self, model: str, **more: object) -> dict[str, object]:
        return {
            "prompts_file": "data/prompts.txt",
            "model_name": f"meta-llama/{model}",
            "labels_file": None,
            "judge_model_name": "claude-sonnet-4-5-20250929",
            "disable_steering": False,
            "target_score_normalized": 0.3,
            "n_features": 10,
            "try_again_prompts": ["Try again."],
            **more,
        }

    def tree(self, model: str, features: list[dict[str, object]], **more: object) -> dict[str, object]:
        return {
            "experiment_config": self.config(model),
            "results_by_feature": features,
            "n_boost_levels": None,
            "boost_range_std": None,
            **more,
        }

    def results(
        self, name: str, reference: str, key: tuple[str, str, str], n: int = 12, judge: str = HAIKU, **more: object
    ) -> Path:
        named = {HAIKU: "haiku-4.5", "claude_sonnet_4_5_20250929_judge": "sonnet-4.5"}.get(judge, judge.removesuffix("_judge"))
        expect = self.expected[(*key, named)]
        return self.write(name, self.tree(reference, [self.feature(expect, 100 + i) for i in range(n)], **more), judge)

    def sweep(self, name: str, boosts: list[float]) -> None:
        features = []
        for i in range(6):
            trials = []
            for boost in boosts:
                expect = self.expected[("exp02", "70b", repr(float(boost)), "haiku-4.5")]
                trials += [self.trial(expect, 300 + i, boost, QUESTIONS[k]) for k in range(3)]
            features.append(
                {"feature_index_in_sae": 300 + i, "feature_label": "x", "threshold": 8.0, "trials": trials, "error": None}
            )
        tree = self.tree(LLAMA70, features, n_boost_levels=len(boosts), boost_range_std=3.0, boost_levels=boosts)
        self.write(name, tree | {"threshold_cache_stats": {"mean": 9.0, "std": 4.0}})

    def variants(self, name: str, reference: str, model: str, variant: str, suffix: str) -> None:
        expect = self.expected[("exp05", model, variant, "haiku-4.5")]
        features = [self.feature(expect, 100 + i, suffix=suffix) for i in range(8)]
        config = self.config(reference, prompt_variant_id=variant, prompt_variant_template="{prompt}" + suffix)
        meta = {"experiment_name": "experiment_5_prompt_variants", "prompt_variant_id": variant, "source_results_file": "x.json"}
        self.write(name, {"experiment_config": config, "results_by_feature": features, "experiment_metadata": meta})

    def regraded(
        self, judge: str, model_id: str, arm: str, trials: list[tuple[str, int, int, object]], shapes: list[list[Fraction] | None]
    ) -> None:
        expect = self.expected[("exp07", "70b", arm, arm)]
        results = []
        for (source, latent, seed, original), scores in zip(trials, shapes, strict=True):
            expect.planned += 1
            if scores is not None:
                expect.graded.append(scores)
            results.append({
                "source_file": source, "feature_index": latent, "feature_label": "l", "prompt": QUESTIONS[0], "seed": seed,
                "has_self_correction": False, "original_score": original, "new_score": self.score(scores),
            })  # fmt: skip
        tree = {
            "model_name": judge,
            "model_id": model_id,
            "timestamp": self.when(),
            "n_samples": len(results),
            "n_errors": 0,
            "results": results,
        }
        self.write(f"cross_judge_results/regraded_{judge}_{self.when()}.json", tree)

    def cross_judge(self) -> None:
        source = f"experiment_results_{LLAMA70}_20260127_000001.json"
        wanted = [self.intention() for _ in range(40)]
        trials = [(source, 100 + i % 7, 1000 + i, self.score(scores)) for i, scores in enumerate(wanted)]
        first = self.expected[("exp07", "70b", "haiku-4.5", "haiku-4.5")]
        first.planned = len(trials)
        first.graded = [scores for scores in wanted if scores is not None]
        self.regraded("gpt-5-mini", "openai/gpt-5-mini", "gpt-5-mini", trials, [self.intention() for _ in trials])
        self.regraded("qwen3-32b", "qwen/qwen3-32b", "qwen3-32b", trials, [self.intention() for _ in trials])
        meta = {
            "timestamp": "t",
            "n_samples": 40,
            "self_correction_count": 9,
            "models": [LLAMA70],
            "seed": 42,
            "source_files": [source],
        }
        self.write(f"cross_judge_results/sample_metadata_{self.when()}.json", meta)

    def smaller(self) -> None:
        data = self.root
        (data / "concreteness_cache").mkdir(parents=True, exist_ok=True)
        put = lambda name, tree: (data / name).write_text(json.dumps(tree))  # noqa: E731 - a word, not a function of note
        put("concreteness_cache/concreteness_scores_1a2b3c4d.json", {"castles": 90, "abstract truth": 5.5, "unknown": "70"})
        cached = {"threshold": 9.5, "achieved_score": 0.31, "config": {"target_score": 0.3, "n_trials": 10}}
        put(f"threshold_cache_{LLAMA70}.json", {"7580": 9.4, "11": cached, "12": "8.25"})
        put(f"threshold_cache_{LLAMA70}_with_ablation.json", {"7580": 10.4})
        stats = {
            "17481": {
                "shuffled_mean_activation": 0.5,
                "normal_mean_activation": 0.0,
                "shuffled_active_frequency": 0.9,
                "normal_active_frequency": 0.0,
            }
        }
        detectors = {"model_name": f"meta-llama/{LLAMA70}", "prompts_file": "p", "num_prompts": 20, "activation_threshold": 1e-8,
                     "off_topic_detectors": [17481, 9168, 40119, 40119], "detector_stats": stats, "normal_responses": {"p": "r"}}  # fmt: skip
        put(f"off_topic_detectors_{LLAMA70}.json", detectors)
        sequential = {"metadata": {"prompt": "p", "seed": 621104}, "activations": {"33044": [0.0, 1.5]}, "token_strings": ["a", "b"],
                      "off_topic_detectors": [17481], "backtracking_latents": {}, "latents_of_interest": {}, "distractor_latent": 7580}  # fmt: skip
        put("experiment_results/experiment_6_sequential_activations.json", sequential)
        self.write("activation_stats/episodes.json", [{"episode_id": "e1", "response": "r"}, {"episode_id": "e2"}])
        self.write(
            "activation_stats/baseline_stats.json", {"n_episodes": 50, "otd_mean": 0.0027, "otd_per_episode": [0.1, float("nan")]}
        )
        self.write("activation_stats/analysis_results.json", {"n_episodes": 146, "otd_group": {"d": 0.4}, "results": [1, 2]})

    def foreign(self) -> list[str]:
        """Files that must be named and of which nothing may enter."""
        at = self.root / "experiment_results" / HAIKU
        good = json.dumps(self.tree(LLAMA70, [self.feature(Expected(), 900 + i) for i in range(4)]))
        bad = {
            "experiment_results_not_json.json": "hello",
            f"experiment_results_{LLAMA70}_20260127_900001.json": good[: len(good) * 2 // 3],
            f"experiment_results_{LLAMA70}_20260127_900002.json": good + "]",
            f"experiment_results_{LLAMA70}_20260127_900003.json": "",
            f"experiment_results_{LLAMA70}_20260127_900004.json": json.dumps(
                {"results_by_feature": {"a": 1}, "experiment_config": {}}
            ),
            "package.json": json.dumps({"name": "x", "version": "1"}),
            "list.json": "[1, 2, 3]",
            "notes.md": "# notes",
            "figure.png": "\x89PNG",
        }
        for name, text in bad.items():
            (at / name).write_text(text, encoding="utf-8")
        (at / "latin.json").write_bytes(b'{"results_by_feature": ["\xff\xfe"]}')
        return [*bad, "latin.json"]

    def cut(self) -> None:
        """A run that hit its time limit: once whole with fewer latents, once cut off in the middle of a latent."""
        self.results(f"experiment_results_{GEMMA9}_{self.when()}_TIMEOUT.json", GEMMA9, ("exp01", "gemma-9b", "baseline"), n=3)
        expect = self.expected[("exp01", "gemma-9b", "baseline", "haiku-4.5")]
        tree = self.tree(GEMMA9, [self.feature(expect, 700 + i) for i in range(3)] + [self.feature(Expected(), 799)])
        text = json.dumps(tree, indent=4)
        path = self.write(f"experiment_results_{GEMMA9}_{self.when()}_late_TIMEOUT.json", {})
        path.write_text(text[: text.index("799") + 120], encoding="utf-8")

    def rejudged(self) -> None:
        """An old file in which a second judge's verdicts stand beside the first's."""
        expect = self.expected[("exp01", "gemma-27b", "baseline", "haiku-4.5")]
        second = self.expected[("exp01", "gemma-27b", "baseline", "sonnet-4.5")]
        features = [self.feature(expect, 500 + i) for i in range(5)]
        for feature in features:
            for trial in feature["trials"]:  # type: ignore[attr-defined] # a list of dicts by construction
                scores = self.intention()
                trial["score_claude_sonnet_4_5_20250929_judge"] = self.score(scores) or {"error": "none"}
                if scores is not None and not feature["error"] and not trial["error"]:
                    second.graded.append(scores)
                    second.degraded += "no no no no no" in trial["response"]
        self.write(f"experiment_results_{GEMMA27}_{self.when()}.json", self.tree(GEMMA27, features, rejudge_history=[{"a": 1}]))
        second.planned = expect.planned

    def chosen_by_name(self, base: str) -> None:
        """What the authors pool, or leave out, by a file's name alone."""
        older, name = "exp04", "masked-ratio-50pct-merged"
        self.results(f"experiment_results_{name}_20250101_000000.json", name, (older, "8b", "50-superseded"), n=3)
        self.results(
            "experiment_results_run-3-merged_20260101_000000.json", "run-3-merged", ("exp04", "run-3-merged", "run-3-merged"), n=3
        )
        self.results(f"{base}_20260126_121505.json", LLAMA70, ("exp01", "70b", "set-aside"), n=3)
        self.results("results of tuesday.json", LLAMA70, ("exp01", "70b", "set-aside"), n=3)
        self.results(f"old/{base}_{self.when()}.json", LLAMA70, ("exp01", "70b", "set-aside"), n=3)
        self.results(f"{base}_20260127_rep_penalty_1.15.json", LLAMA70, ("exp01", "70b", "baseline"), n=3)
        other = "gemma-2-9b-it-res-16k-layer-20"
        self.results(f"experiment_results_{other}_{self.when()}.json", other, ("exp01", "gemma-9b", "baseline"), n=4)
        late = f"{base}_{self.when()}_with_ablation_TIMEOUT.json"
        self.results(late, LLAMA70, ("exp03", "70b", "detectors"), n=4, ablated_latents=list(range(25)))
        few = f"{base}_{self.when()}_with_ablation.json"
        self.results(few, LLAMA70, ("exp03", "70b", "detectors-10"), n=4, ablated_latents=list(range(10)))
        known = f"{base}_20260121_172840_with_ablation.json"
        self.results(known, LLAMA70, ("exp03", "70b", "set-aside"), n=4, ablated_latents=list(range(26)))
        unsteered = f"{base}_{self.when()}_no_steering_baseline_TIMEOUT.json"
        self.results(unsteered, LLAMA70, ("exp08", "70b", "set-aside"), n=4)

    def build(self) -> list[str]:
        """Everything; the names of what must be passed over."""
        base = f"experiment_results_{LLAMA70}"
        first = self.results(f"{base}_{self.when()}_layer33_repro.json", LLAMA70, ("exp01", "70b", "baseline"))
        self.results(f"{base}_{self.when()}.json", LLAMA70, ("exp01", "70b", "baseline"), n=20)
        self.results(f"{base}_{self.when()}.json", LLAMA70, ("exp01", "70b", "baseline"), judge="claude_sonnet_4_5_20250929_judge")
        (first.parent / f"{first.stem} (copy).json").write_bytes(first.read_bytes())
        self.results(f"experiment_results_{LLAMA8}_{self.when()}.json", LLAMA8, ("exp01", "8b", "baseline"))
        self.results(f"experiment_results_Mystery-7B_{self.when()}.json", "Mystery-7B", ("exp01", "Mystery-7B", "baseline"), n=3)
        ablated = list(range(26))
        self.results(
            f"{base}_{self.when()}_with_ablation.json",
            LLAMA70,
            ("exp03", "70b", "detectors"),
            ablated_latents=ablated,
            num_ablated_latents=26,
        )
        for i in range(3):
            name = f"random_latent_control/{base}_{self.when()}_random_ablation_set{i}.json"
            self.results(name, LLAMA70, ("exp10", "70b", f"random-{i}"), ablated_latents=ablated)
        self.results(f"{base}_{self.when()}_no_steering_baseline.json", LLAMA70, ("exp08", "70b", "no-steering"))
        for percent in (10, 50):
            name = f"masked-ratio-{percent}pct-merged"
            self.results(f"experiment_results_{name}_{self.when()}.json", name, ("exp04", "8b", str(percent)))
        self.chosen_by_name(base)
        self.expected["exp04", "8b", "base", "haiku-4.5"] = self.expected["exp01", "8b", "baseline", "haiku-4.5"]
        self.sweep(f"experiment_multi_boost_{LLAMA70}_{self.when()}.json", [0.0, 0.0, 3.5, 7.25, 11])
        self.variants(f"experiment_5_prompt_variants_{LLAMA70}_self_monitor_{self.when()}.json", LLAMA70, "70b", "self_monitor",
                      " If you notice yourself going off-topic, stop and force yourself to get back on track.")  # fmt: skip
        self.variants(f"experiment_5_prompt_variants_{LLAMA8}_dont_get_distracted_{self.when()}.json", LLAMA8, "8b",
                      "dont_get_distracted", " Don't get distracted!")  # fmt: skip
        self.cut()
        self.rejudged()
        self.cross_judge()
        self.smaller()
        return self.foreign()
