"""The arrays that the toolkit passes about, named by what they hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Labels = Sequence[object] | npt.NDArray[np.generic]
"""One hashable label per row; rows with the same label belong together."""
