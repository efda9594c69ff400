"""Which devices this machine shows, found without importing torch."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping

# With fewer responses each, a second worker is hardly started before the first has made them all.
RESPONSES_BY_CPU_WORKER = 500

# Pieces of memory from this size on go back to the system when they are free. glibc keeps up to
# eight times as much after some time, so that what a worker once held it holds for good.
PIECE_BYTES = 1 << 20

# Products that oneDNN keeps prepared, each for one size of weights and one number of rows. Of the
# thousand that it keeps otherwise each takes memory, and few numbers of rows come again.
PREPARED_PRODUCTS = 64


def visible_devices() -> list[str]:
    """`cuda:0`, `cuda:1` ... as far as visible, else `mps` on Apple silicon, else `cpu`."""
    count = _n_cuda()
    if count:
        return [f"cuda:{index}" for index in range(count)]
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return ["mps"]
    return ["cpu"]


def usable_cores() -> int:
    """How many of the machine's cores this process may use: a scheduler may have bound it to some,
    and a container may have a share."""
    import joblib

    return int(joblib.cpu_count())


# What a GPU worker on a CPU takes beside its weights: torch, and the states of responses under way.
CPU_WORKER_BYTES = 3 << 30

# With fewer weights a response takes about as long to be made as to be judged on the same machine:
# so it is with the demo model's 4 MB, and far from it with the 540 MB of the model of `make real`.
LIGHT_BYTES = 32 << 20


def cpu_workers(
    n_cores: int, *, weight_bytes: int, free_bytes: int, n_responses: int, is_judged_here: bool
) -> int:
    """How many workers of a private fleet share a machine's cores.

    Between two multiplications of a small model much of a step is one thread's, so two workers of
    one thread each do more than one of two, and one reads texts while another generates. Each holds
    weights of its own and takes seconds to start: as many as half the free memory holds, and no
    more than keep busy. Where judging on the same cores takes as long, a core is left to it: two
    workers that wait for it halve each other's batches.
    """
    to_judge = 1 if is_judged_here and weight_bytes < LIGHT_BYTES else 0
    by_cores = min(n_cores - to_judge, 2 + n_cores // 8)
    by_memory = free_bytes // 2 // (weight_bytes + CPU_WORKER_BYTES)
    return max(1, min(by_cores, by_memory, n_responses // RESPONSES_BY_CPU_WORKER))


def pin(device: str, environment: dict[str, str], *, n_here: int) -> tuple[str, dict[str, str]]:
    """The device's name inside a process pinned to it, and that process's environment.

    A CUDA process sees its one device only, as cuda:0, so nothing lands on another by mistake.
    The n_here CPU workers of a machine share its cores and leave one to judging and the broker.
    """
    if device == "cpu":
        threads = max(1, (usable_cores() - 1) // n_here)
        own = {
            "OMP_NUM_THREADS": str(threads),
            "MALLOC_MMAP_THRESHOLD_": str(PIECE_BYTES),
            "ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(PREPARED_PRODUCTS),
        }
        return device, {**own, **environment}
    if not re.fullmatch(r"cuda(:\d+)?", device):
        # what it may be is for torch to say, in the worker
        return device, environment
    index = int(device.partition(":")[2] or 0)
    ids = shown_ids(environment)
    # one that is not among the visible ones is none: the worker says so
    chosen = (ids[index] if index < len(ids) else "") if ids else str(index)
    return "cuda:0", {**environment, "CUDA_VISIBLE_DEVICES": chosen}


def shown_ids(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The devices that CUDA_VISIBLE_DEVICES names."""
    shown = environment.get("CUDA_VISIBLE_DEVICES", "")
    return [part.strip() for part in shown.split(",") if part.strip()]


def _n_cuda() -> int:
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return 0 if shown_ids() == ["-1"] else len(shown_ids())
    try:
        import pynvml

        pynvml.nvmlInit()
    except (ImportError, OSError):
        return 0
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()
