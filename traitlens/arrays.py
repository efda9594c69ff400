"""The arrays that the toolkit passes about, named by what they hold; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Labels = Sequence[object] | npt.NDArray[np.generic]
"""One hashable label per row; rows with the same label belong together."""

Activations: TypeAlias = "Tensor | Floats"


def as_float32(rows: Activations) -> Float32:
    """Numpy float32; shares memory with float32 CPU input."""
    if isinstance(rows, np.ndarray):
        return np.asarray(rows, dtype=np.float32)
    return np.asarray(rows.detach().cpu().float().numpy())
