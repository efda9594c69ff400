"""The errors of traitlens, each a ValueError or a LookupError that says what to do."""

from __future__ import annotations


class ShapeError(ValueError):
    """Arrays do not fit together; pass [n, d_model] or [n, L+1, d_model] of both polarities."""


class NonFiniteError(ValueError):
    """An activation is NaN or infinite; drop or recompute the row that the message names."""


class VectorMismatchError(ValueError):
    """A vector and a model (or two vectors) do not belong together; use the right one."""


class VectorFileError(ValueError):
    """A file does not hold trait vectors; write it with this toolkit or with persona_vectors."""


class LayerError(LookupError):
    """No such layer; use 0..L, a negative index, "block:15", "pre:16" or "50%"."""


class MissingVectorError(LookupError):
    """No vector for this method or position; choose one that the message lists."""


class MissingModuleError(LookupError):
    """The model has no such module; use a path that the message lists."""


class MissingPackageError(ImportError):
    """An optional package is not installed; install the one that the message names."""
