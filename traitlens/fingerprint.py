"""A short hash of a model's weights, so that a vector can refuse another model.

Knows nothing about vectors.
"""

import hashlib

import torch
from torch import Tensor, nn

# 64 values of every parameter: enough that any fine-tune shows, few enough to hash a 70B at once.
SAMPLES_PER_PARAMETER = 64
# Below this, float16 rounds differently from bfloat16; such values are hashed as zero.
SMALLEST_HASHED = 2.0**-12


def model_hash(model: nn.Module) -> str:
    """Hash a strided sample of every floating-point parameter: 16 hexadecimal digits.

    The same for float32, bfloat16 and float16 copies of a bfloat16 checkpoint, on any device.
    Parameters without data (offloaded to the meta device) are left out.
    """
    digest = hashlib.sha256()
    for parameter in model.parameters():
        if not parameter.is_floating_point() or parameter.is_meta:
            continue
        digest.update(str(tuple(parameter.shape)).encode())
        digest.update(_sample(parameter.detach()))
    return digest.hexdigest()[:16]


def _sample(weights: Tensor) -> bytes:
    flat = weights.reshape(-1)
    step = max(1, flat.numel() // SAMPLES_PER_PARAMETER)
    values = flat[::step][:SAMPLES_PER_PARAMETER].to("cpu", torch.bfloat16).float()
    values[values.abs() < SMALLEST_HASHED] = 0.0
    return values.numpy().tobytes()
