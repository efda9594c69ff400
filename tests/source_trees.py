"""A source file as a syntax tree, for the tests that read the product's code."""

from __future__ import annotations

import ast
import gc
from pathlib import Path


def parsed(file: Path) -> ast.Module:
    """
    The tree of a Python file, with the garbage collector held until it is whole.

    Before 3.11.8 Python fails with a `SystemError` when something else parses meanwhile (cpython
    106905). While a tree is built only a collection runs other code: a callback, or a thread that
    formats an error.
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    finally:
        if collected:
            gc.enable()
