"""Chooses the core that generates: the fast one where a trial on the loaded model shows that it is
exact, else the slower one.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from transformers import PreTrainedConfig

from domain.errors import ModelError
from traitlens.arrays import Float32, Float64
from traitlens.capture.blocks import decoder_blocks
from traitlens.errors import MissingModuleError
from workers.engine.fallback import GenerateCore, exact_company
from workers.engine.generation import Generation, GenerationRequest, Sampling
from workers.engine.refill import RefillCore
from workers.engine.states import STATEFUL_LAYERS
from workers.engine.steps import recorder_for
from workers.engine.teacher_forced import teacher_forced
from workers.models.device import is_out_of_memory
from workers.models.model import LoadedModel

# Single-threaded, over one model: add requests, then step while it has work.
Engine = RefillCore | GenerateCore

# Layers without a cache are named "mlp" or "moe".
CARRIED_LAYERS = {"full_attention", "sliding_attention", "chunked_attention", "mlp", "moe"}
CARRIED_LAYERS |= STATEFUL_LAYERS

# Largest distance of a row between the engine and a plain pass, relative to its length: what is
# promised of float32, where rounding alone makes 4e-6 in thirty layers. The coarse one is that of a
# cosine of 0.99.
ROUNDING = 1e-5
COARSE_ROUNDING = 0.14
log = logging.getLogger(__name__)


def build_engine(model: LoadedModel, *, max_rows: int | None = None) -> Engine:
    """An engine on the model; `max_rows` bounds the batch, by default the device's memory does.

    Raises ModelError for a family that cannot be measured.
    """
    try:
        decoder_blocks(model.model)
    except MissingModuleError as error:
        raise ModelError(f"This family cannot be measured yet: {error}") from error
    obstacle = _obstacle(model)
    if obstacle is None:
        return RefillCore(model, max_rows=max_rows, recorder=recorder_for(model))
    log.warning(
        "Model %s runs on transformers' generate and a second pass, which is slower: %s.",
        model.model_id,
        obstacle,
    )
    rounding = ROUNDING if model.dtype == torch.float32 else COARSE_ROUNDING
    company = exact_company(model, rounding=rounding)
    if company != "any":
        log.warning(
            "Model %s writes other tokens in a padded batch: %s.",
            model.model_id,
            "only those of one length are batched" if company == "alike" else "each runs alone",
        )
    return GenerateCore(model, max_rows=max_rows, company=company)


def _obstacle(model: LoadedModel) -> str | None:
    """Why the fast core cannot carry this model; None when it can."""
    text = model.model.config.get_text_config()
    other = set(getattr(text, "layer_types", None) or ()) - CARRIED_LAYERS
    if other:
        return f"it has layers of type {', '.join(sorted(other))}"
    return _disagreement(model, text)


def _disagreement(model: LoadedModel, text: PreTrainedConfig) -> str | None:
    core = RefillCore(model, max_rows=2, recorder=recorder_for(model))
    step = max(1, text.vocab_size // 64)
    prompts = [tuple(range(1, 1 + 8 * step, step)), tuple(range(2, 2 + 5 * step, step))]
    greedy = Sampling(max_new_tokens=6, temperature=0.0)
    requests = [GenerationRequest(ids, 0, greedy) for ids in prompts]
    core.add(requests)
    made: dict[GenerationRequest, Generation] = {}
    try:
        while core.has_work:
            made |= {done.request: done for done in core.step()}
    except (TypeError, AttributeError, KeyError, IndexError, RuntimeError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        return f"a trial failed ({type(error).__name__}: {str(error).splitlines()[0]})"
    expected = _reaches(text)
    if core.reaches.keys() != expected.keys():
        return "its attention cannot be exchanged"
    if core.reaches != expected:
        return "its sliding windows are not passed to the attention"
    done = [made[request] for request in requests]
    plain = teacher_forced(model, prompts, [generation.response_ids for generation in done])
    ours = [[g.response_avg, g.prompt_avg, g.prompt_last] for g in done]
    distances = _distances(np.array(ours).swapaxes(0, 1), np.stack(plain[:3]))
    if model.dtype == torch.float32:
        worst, allowed = float(distances.max()), ROUNDING
    else:
        # Coarse rounding may send single tokens to other experts; most rows still agree.
        worst, allowed = float(np.median(distances)), COARSE_ROUNDING
    return None if worst <= allowed else f"a trial was off by {worst:.1e} of a state's length"


def _reaches(text: PreTrainedConfig) -> dict[int, tuple[int | None, int | None]]:
    """The window and chunk that a configuration gives each layer that attends."""
    window = getattr(text, "sliding_window", None)
    types = getattr(text, "layer_types", None)
    if types is None:
        return dict.fromkeys(range(text.num_hidden_layers), (window, None))
    reach = {
        "full_attention": (None, None),
        "hybrid": (None, None),
        "sliding_attention": (window, None),
        "hybrid_sliding": (window, None),
        "chunked_attention": (None, getattr(text, "attention_chunk_size", None)),
    }
    return {layer: reach[kind] for layer, kind in enumerate(types) if kind in reach}


def _distances(a: Float32, b: Float32) -> Float64:
    apart = np.linalg.norm(np.subtract(a, b, dtype=np.float64), axis=-1)
    length = np.linalg.norm(b.astype(np.float64), axis=-1)
    relative = np.divide(apart, length, out=np.full_like(apart, np.inf), where=length > 0)
    # Rows of zeros on both sides belong to an empty response.
    return np.where(apart > 0, relative, 0.0)
