"""What an extraction method gives back.

Knows nothing about how methods work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from traitlens.sides import Activations, FloatArray, Labels


@dataclass(frozen=True, eq=False)
class MethodResult:
    """`vectors` float32 [L+1, d_model], raw; `details` name -> one number or an array per layer."""

    vectors: FloatArray
    details: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


class Method(Protocol):
    """A method takes the activations of both polarities and returns directions."""

    def __call__(
        self,
        pos: Activations,
        neg: Activations,
        *,
        groups: tuple[Labels, Labels] | None = None,
        seed: int = 0,
    ) -> MethodResult:
        """Activations [n, L+1, d_model] (or [n, d_model], then one row comes back).

        `groups` labels the rows of each side by the prompt they came from, for methods that hold
        rows out; `seed` feeds methods that draw numbers.
        """
        ...
