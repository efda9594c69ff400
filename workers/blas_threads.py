"""How many threads linear algebra runs on while methods are fitted.

Knows nothing of what is computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

# its BLAS must be loaded before it can be limited, and the methods import it late
import scipy.linalg  # noqa: F401
from threadpoolctl import threadpool_limits

# 4 MB of float32, about what stays in a core's caches; larger products are worth sharing.
SMALL = 1 << 20


@contextlib.contextmanager
def blas_threads_for(n_values: int) -> Iterator[None]:
    """One thread of BLAS while the context is open if matrices of that many values are small.

    Fits are many products of one layer's activations. Small ones that are shared among threads take
    two to ten times the CPU time, most of it waiting for one another, and longer where other
    processes want the cores.
    """
    if n_values > SMALL:
        yield
        return
    with threadpool_limits(limits=1, user_api="blas"):
        yield
