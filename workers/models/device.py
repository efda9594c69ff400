"""The device that a model computes on: which one, what it still holds, and how it fails."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil
import torch
from torch import Tensor

from domain.errors import CannotWorkError
from workers.models.memory import main_memory

# How torch's own sentences begin when a process has lost its device or never had it.
DEVICE_LOST = (
    "CUDA error",
    "HIP error",
    "No CUDA GPUs are available",
    "Found no NVIDIA driver",
    "cudaGetDeviceCount",
    "CUDA driver initialization failed",
)


def chosen_device(name: str) -> torch.device:
    """The device of that name; "auto" is the current CUDA device, else MPS, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


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
    is_other = not isinstance(error, RuntimeError) or is_out_of_memory(error)
    return not is_other and any(words in str(error) for words in DEVICE_LOST)


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on the device, what torch holds in reserve included."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return main_memory()[1]


def release_reserve(device: torch.device) -> None:
    """Give unused reserve back to the device: torch's own, so that the next allocation finds one
    piece; on a CPU that of the C library, where it has a function for that."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(ctypes.c_size_t(0))


def unmap_clean(weights: Iterable[Tensor]) -> None:
    """Let this process hold no pages of weights that lie in a mapped file; whoever reads them gets
    them from there again.

    Leaves alone what lies elsewhere, and what lies in a file some of whose pages were written to;
    does nothing where the system is not Linux, or does not show its maps.
    """
    weights = list(weights)
    if sys.platform != "linux" or not weights:
        return
    maps = _clean_maps()
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for weight in weights:
        first, last = weight.data_ptr(), weight.data_ptr() + weight.nbytes
        if any(start <= first and last <= end for start, end in maps):
            # whole pages: others reach into the first and the last
            page, stop = -(-first // mmap.PAGESIZE), last // mmap.PAGESIZE
            size = max(0, stop - page) * mmap.PAGESIZE
            advise(page * mmap.PAGESIZE, size, mmap.MADV_DONTNEED)


def _clean_maps() -> list[tuple[int, int]]:
    """Where files are mapped of which this process wrote to no page."""
    try:
        maps = psutil.Process().memory_maps(grouped=False)
    # kernels that show no maps, or not in the form that psutil knows
    except (AttributeError, ValueError, OSError, psutil.Error):
        return []
    found = []
    for mapped in maps:
        # huge pages have names like a file's, and are counted nowhere
        if not mapped.anonymous and not mapped.swap and Path(mapped.path).is_file():
            start, end = mapped.addr.split("-")
            found.append((int(start, 16), int(end, 16)))
    return found


def prove_device(device: str, *, shown: str = "") -> None:
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
