"""The workers of one engine: what each holds of the model, and what their answers are together.

Ranks that are tensor parallel to one another do the same. Those of a pipeline have blocks of their own: each counts at its blocks, the
one that has a capture's block holds the capture, and the last one alone answers for a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from esr.errors import EngineError


@dataclass(frozen=True, slots=True)
class Rank:
    """One worker."""

    layers: tuple[int, ...]
    """Hooked blocks that it has, by their numbers in the whole model."""
    reads: bool = True
    """It holds captures; of those that are tensor parallel one does."""
    last: bool = True
    """What it answers after a step is what the engine hears."""


def by_stage(parallel: Any, answers: Sequence[Any]) -> list[Any]:
    """One rank's answer for each pipeline stage, out of all ranks' in their order; `parallel`: vLLM's ParallelConfig."""
    found = list(answers[:: parallel.tensor_parallel_size])
    if len(found) < parallel.pipeline_parallel_size:
        raise EngineError(
            f"{len(found)} of {parallel.pipeline_parallel_size} stages of the pipeline answered; open the engine again"
        )
    return found


async def ask_stages(client: Any, method: str, *args: object) -> list[Any]:
    """What the workers of vLLM's engine client answer, one for each stage."""
    return by_stage(client.vllm_config.parallel_config, await client.collective_rpc(method, args=args))


def joined(stages: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """What was applied of one request, by all stages; None where one does not know it."""
    known = [answer for answer in stages if answer is not None]
    if not known or len(known) < len(stages):
        return None
    if len(known) == 1:
        return known[0]
    wrong = next((answer for answer in known if answer["executed"] != answer["expected"]), None)
    counted = [wrong] if wrong else known  # what one did too often would make up for what another did too seldom
    out = known[0] | {key: sum(answer[key] for answer in counted) for key in ("executed", "expected")}
    out["stays"] = max(answer["stays"] for answer in known)
    for key in ("error", "capture"):
        out |= {key: next((answer[key] for answer in known if answer[key] is not None), None)} if key in out else {}
    return out


def fullest(stages: Sequence[dict[str, int]]) -> dict[str, int]:
    """What is held, by the stage that holds most of each."""
    return {key: max(answer[key] for answer in stages) for key in stages[0]}
