"""How many threads linear algebra runs on while methods are fitted.

Knows nothing of what is computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

# its BLAS must be loaded before it can be limited, and the methods import it late
import scipy.linalg  # noqa: F401
from threadpoolctl import threadpool_limits


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """One thread of BLAS while the context is open, or in the function that it decorates.

    The fits are many products of a few thousand rows. Shared among threads they take two to ten
    times the CPU time, most of it waiting for one another, and longer where other processes want
    the cores. Sums also come out the same on every machine of one kind.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        yield
