"""What a server asks its workers: counts, captures, limits; many that wait share one call."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from esr.engine.plugin.admission import sites_of
from esr.engine.plugin.ranks import ask_stages, by_stage, fullest, joined
from esr.engine.plugin.spec import KEY

BATCH = 256
"""Counts asked for in one call."""


@dataclass(slots=True)
class Desk:
    """Hands out what the workers hold."""

    client: Any
    """vLLM's EngineClient."""
    waiting: list[tuple[str, bool, "asyncio.Future[dict[str, Any] | None]"]] = field(default_factory=list)
    asking: "asyncio.Task[None] | None" = None

    async def limits(self) -> dict[str, Any]:
        config = self.client.vllm_config
        steering = dict((config.additional_config or {}).get(KEY) or {})
        saes = {
            name: {key: block.get(key) for key in ("layer", "d_in", "d_sae", "sha256")}
            for name, block in (steering.pop("saes", None) or {}).items()
        }
        known = sites_of(config).known if steering else {}
        steering["directions"] = {name: {"layers": shape.layers, "sha256": shape.sha256} for name, shape in known.items()}
        held = [fullest(stages) for stages in await self.ask("esr_stats")]
        return {"saes": saes, **steering, "now": {key: sum(engine[key] for engine in held) for key in held[0]}}

    async def take(self, id: str, rows: int | None) -> dict[str, Any] | None:
        engines = [joined([answer[0] for answer in stages]) for stages in await self.ask("esr_take", [id], [rows])]
        known = [answer for answer in engines if answer is not None]
        if len(known) > 1:
            return {"error": "more than one request came with this id, to several engines; an `id` names one reply"}
        return known[0] if known else None

    async def forget(self, ids: list[str]) -> None:
        await self.ask("esr_forget", ids)

    async def count(self, id: str, *, keep: bool) -> dict[str, Any] | None:
        """How often the device applied a request's ops; None where no engine knows it, or more than one, which then had two by its
        id. keep: somebody may come for its capture."""
        future: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        self.waiting.append((id, keep, future))
        if self.asking is None or self.asking.done():
            self.asking = asyncio.create_task(self._count())
        return await future

    async def _count(self) -> None:
        while self.waiting:
            batch, self.waiting = self.waiting[:BATCH], self.waiting[BATCH:]
            try:
                engines = await self.ask("esr_count", [id for id, _, _ in batch], [keep for _, keep, _ in batch])
            except Exception as error:  # handed to whoever waits
                for _, _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for i, (_, _, future) in enumerate(batch):
                if not future.done():
                    found = (joined([answer[i] for answer in stages]) for stages in engines)
                    known = [answer for answer in found if answer is not None]
                    future.set_result(known[0] if len(known) == 1 else None)

    async def ask(self, method: str, *args: object) -> list[list[Any]]:
        """Every engine's answers, stage by stage of its pipeline: vLLM's own call hands back those of one data-parallel engine only."""
        core = self.client.engine_core
        engines = getattr(core, "core_engines", ())
        if len(engines) < 2:
            return [await ask_stages(self.client, method, *args)]
        calls = (core._call_utility_async("collective_rpc", method, None, args, None, engine=engine) for engine in engines)
        parallel = self.client.vllm_config.parallel_config
        return [by_stage(parallel, answers) for answers in await asyncio.gather(*calls)]
