"""Lets every case say what it promises, does and saw, for the table in docs/reliability.md.

A case's docstring holds the promise and, after an empty line, what the test does. With
`--junitxml FILE` pytest writes both down beside what the case noted, for tests/faults/table.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

Note = Callable[[str, object], None]


@pytest.fixture(autouse=True)
def note(request: pytest.FixtureRequest, record_property: Note) -> Note:
    """Notes a property of the case."""
    promise, _, does = (request.function.__doc__ or "").partition("\n\n")
    if does:
        record_property("promise", " ".join(promise.split()))
        record_property("does", " ".join(does.split()))
    if "scene" in request.fixturenames:
        request.getfixturevalue("scene").note = record_property
    return record_property
