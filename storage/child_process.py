"""Ties a child process's life to its parent's, where the system can."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """In a child before exec: ask Linux to end us when the parent ends, also after SIGKILL.

    Elsewhere nothing happens; there a parent that is killed outright leaves its children behind.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
