"""How much of a device's memory is free, and how many rows of generation that would hold.

Proves that a device computes before a worker takes work for it.
"""

from __future__ import annotations

import psutil
import torch

from domain.errors import CannotWorkError
from workers.engine.generation import GenerationRequest
from workers.models.model import LoadedModel, chosen_device

# Logits, their float32 copy and the probabilities, in bytes per vocabulary entry and row.
LOGIT_BYTES = 12

# The rest is for what a forward pass holds for a moment.
MEMORY_SHARE = 0.8


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on the device, what torch holds in reserve included."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return int(psutil.virtual_memory().available)


def release_reserve(device: torch.device) -> None:
    """Give torch's unused reserve back, so that the next allocation finds one piece."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def rows_that_fit(model: LoadedModel, request: GenerationRequest, token_bytes: int) -> int:
    """How many more rows as long as this request may get would fit into the device's free memory.

    `token_bytes` is what the cache holds per token, over all layers.
    """
    tokens = len(request.prompt_ids) + request.sampling.max_new_tokens
    summed = 4 * (model.n_layers + 1) * model.d_model
    drawn = LOGIT_BYTES * model.model.config.get_text_config().vocab_size
    row = tokens * token_bytes + summed + drawn
    return int(MEMORY_SHARE * free_bytes(model.device) / row)


def prove(device: str, *, shown: str = "") -> None:
    """Allocate and add on a device, `shown` to people under its own name.

    Raises CannotWorkError with what to do for an unknown device and one that does not compute.
    """
    try:
        total = float(torch.ones(8, device=chosen_device(device)).sum())
    # an unknown name, a torch without CUDA, no driver, a broken device: each raises another class
    except Exception as error:
        words = (str(error) or repr(error)).splitlines()[0].rstrip(".")
        raise CannotWorkError(_advice(shown or device, words)) from error
    if total != 8:
        raise CannotWorkError(_advice(shown or device, f"the sum of eight ones is {total:g} there"))


def _advice(device: str, words: str) -> str:
    return (
        f"nothing can be computed on the device {device} here ({words}): check its name, its "
        "driver, that torch is built for it and that nothing else fills it, or start with "
        "--device cpu"
    )
