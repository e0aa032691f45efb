"""How vLLM's two model runners fill the tables: V2 through its model-state seam, V1 after it has laid out its inputs."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from vllm.v1.worker.gpu.model_states.default import DefaultModelState

from esr.engine.plugin.ops import CONTEXT

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from esr.engine.plugin.state import SteerState


class SteerModelState(DefaultModelState):
    """What vLLM's V2 runner calls as requests come, go and are batched."""

    def __init__(self, vllm_config: "VllmConfig", model: nn.Module, encoder_cache: Any, device: torch.device) -> None:
        super().__init__(vllm_config, model, encoder_cache, device)
        self.steering: SteerState = vllm_config.compilation_config.static_forward_context[CONTEXT]
        self._prepared: Any = None

    def add_request(self, req_index: int, new_req_data: Any) -> None:
        super().add_request(req_index, new_req_data)
        params = new_req_data.sampling_params
        if params is not None:
            prompt = new_req_data.prompt_token_ids
            self.steering.admit(
                new_req_data.req_id, params.extra_args, len(prompt), new_req_data.prefill_token_ids or prompt, req_index
            )

    def remove_request(self, req_id: str) -> None:
        super().remove_request(req_id)
        self.steering.leave(req_id)

    def preprocess_state(self, input_batch: Any, *args: Any, **kwargs: Any) -> None:
        super().preprocess_state(input_batch, *args, **kwargs)
        self._prepared = input_batch
        n = input_batch.num_reqs
        known = self.steering.live
        slots = input_batch.idx_mapping_np[:n].astype(np.int64)
        self.steering.refresh(
            slots, input_batch.num_computed_tokens_np[:n].astype(np.int64), input_batch.num_scheduled_tokens[:n].astype(np.int64),
            spans=(input_batch.query_start_loc, input_batch.idx_mapping) if known and self.steering.device.type == "cuda" else None,
            padded=input_batch.num_tokens_after_padding, tokens=input_batch.input_ids,
        )  # fmt: skip

    def prepare_inputs(self, input_batch: Any, req_states: Any) -> dict[str, Any]:
        if input_batch is not self._prepared:
            self.steering.flush()
            self.steering.warm(input_batch.num_reqs, input_batch.query_start_loc, input_batch.idx_mapping)
            self.steering.rest()
        self._prepared = None
        return super().prepare_inputs(input_batch, req_states)


def prepare_v1(state: "SteerState", runner: Any, count: np.ndarray) -> None:
    """What the V1 runner's `_prepare_inputs` has just laid out. A request that is not in this step stays: of a pipeline's steps under way
    each has some of the requests."""
    batch = runner.input_batch
    n = batch.num_reqs
    ids = list(batch.req_ids[:n])
    for i, request in enumerate(ids):
        if request not in state.slots:
            params = runner.requests[request].sampling_params
            if params is not None and params.extra_args:
                cached = runner.requests[request]
                tokens = [*(cached.prompt_token_ids or ()), *cached.output_token_ids]
                state.admit(request, params.extra_args, int(batch.num_prompt_tokens[i]), tokens)
    slots = np.array([state.slots.get(request, state.none) for request in ids], np.int64)
    state.refresh(
        slots, batch.num_computed_tokens_cpu[:n].astype(np.int64), np.asarray(count[:n], np.int64),
        tokens=getattr(runner.input_ids, "gpu", runner.input_ids),
    )  # fmt: skip
