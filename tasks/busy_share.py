"""The share of the last minute that a device computed.

Knows nothing of what it computes; whoever asks every few seconds keeps it going.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 60.0


class BusyShare:
    """`computed_s` says how many seconds the device has computed so far."""

    def __init__(
        self, computed_s: Callable[[], float], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._computed_s, self._clock = computed_s, clock
        self._seen = deque([(clock(), computed_s())])

    def share(self) -> float:
        """0 to 1, over the time since the last look that is a minute ago, or since the start."""
        now, total = self._clock(), max(self._computed_s(), self._seen[-1][1])
        self._seen.append((now, total))
        while len(self._seen) > 1 and now - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        began, before = self._seen[0]
        return min(1.0, (total - before) / (now - began)) if now > began else 0.0
