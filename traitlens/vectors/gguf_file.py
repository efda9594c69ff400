"""Reads the key-values and float tensors of a GGUF file, within the file's own bytes.

The gguf package trusts the counts that a file states, and a file may state 2**63 of them.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traitlens.errors import VectorFileError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
"""Type of a value -> its format in struct, little-endian."""

FLOATS: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
"""Type of a tensor -> its numbers; quantized ones are not read."""


def read_gguf(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """Key -> value, and name -> float32 tensor in numpy's order; raises VectorFileError for what is
    not a whole GGUF file of floats."""
    try:
        return _read(_Cursor(data))
    except ValueError as error:
        raise VectorFileError(f"not a GGUF file of vectors ({error})") from error


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        if n > len(self.data) - self.at:
            raise ValueError(f"it speaks of {n} bytes where {len(self.data) - self.at} are left")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, kind: str) -> Any:
        """The next number, of a format of struct."""
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]

    def text(self) -> str:
        """The next string."""
        return self.take(self.number("Q")).decode()

    def value(self, kind: int) -> Any:
        """The next value of a type; an array as a list."""
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            raise ValueError(f"it has a value of an unknown type, {kind}")
        of, n = self.number("I"), self.number("Q")
        if of == ARRAY:
            raise ValueError("it has an array of arrays")
        return [self.value(of) for _ in range(n)]


def _read(cursor: _Cursor) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    if cursor.take(4) != MAGIC or cursor.number("I") not in VERSIONS:
        raise ValueError(f"it does not begin as one of version {VERSIONS} does")
    n_tensors, n_values = cursor.number("Q"), cursor.number("Q")
    values = {}
    for _ in range(n_values):
        name = cursor.text()
        values[name] = cursor.value(cursor.number("I"))
    placed = []
    for _ in range(n_tensors):
        name = cursor.text()
        shape = [cursor.number("Q") for _ in range(cursor.number("I"))]
        placed.append((name, shape, cursor.number("I"), cursor.number("Q")))
    step = values.get("general.alignment", 32)
    if not isinstance(step, int) or step < 1:
        raise ValueError(f"its alignment is {step!r:.40}")
    begin = -(-cursor.at // step) * step
    tensors = {}
    for name, shape, kind, offset in placed:
        if kind not in FLOATS:
            raise ValueError(f"its tensor {name!r:.40} is not of floats")
        cursor.at = min(begin + offset, len(cursor.data))
        numbers = np.frombuffer(cursor.take(math.prod(shape) * FLOATS[kind].itemsize), FLOATS[kind])
        # the innermost axis comes first there
        tensors[name] = numbers.astype(np.float32).reshape(shape[::-1])
    return values, tensors
