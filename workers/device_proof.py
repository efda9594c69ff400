"""Proves that a device computes before a worker takes work for it.

Knows nothing of models.
"""

from __future__ import annotations

import torch

from orchestrator.errors import CannotWorkError
from workers.model import chosen_device


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
