"""Giving a direction the size of the gap between the two sides, so that methods can be compared.

A classifier's weights and a component's column have arbitrary lengths; a steering coefficient
would mean something else for each. Every method but mean_diff (whose length is the gap already)
returns u * (u . (mean_pos - mean_neg)) with u its unit direction: coefficient 1 moves an
activation from the negatives' mean to the positives' mean along u. Knows nothing about methods.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from traitlens.sides import FloatArray


def gap_scaled(
    direction: npt.NDArray[np.floating], pos: FloatArray, neg: FloatArray
) -> npt.NDArray[np.float64]:
    """The direction [d_model] with the length of the gap along it, pointing at the positives.

    pos and neg are [n, d_model]. A zero direction stays zero.
    """
    wide = direction.astype(np.float64)
    norm = np.linalg.norm(wide)
    if norm == 0:
        return wide
    unit = wide / norm
    difference = pos.mean(axis=0, dtype=np.float64) - neg.mean(axis=0, dtype=np.float64)
    return unit * float(unit @ difference)
