"""Says what an error means for its device; knows nothing about what was computed there."""

from __future__ import annotations

import torch

# How torch's own sentences begin when a process has lost its device or never had it.
_LOST = (
    "CUDA error",
    "HIP error",
    "No CUDA GPUs are available",
    "Found no NVIDIA driver",
    "cudaGetDeviceCount",
    "CUDA driver initialization failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """True for CUDA's own error and for the plain RuntimeErrors of the CPU and MPS."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "out of memory")
    )


def is_device_lost(error: BaseException) -> bool:
    """True when this process can compute nothing more on its device, such as after an illegal
    memory access: every later CUDA call of the process fails alike."""
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return any(words in str(error) for words in _LOST)
