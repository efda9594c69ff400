"""Protects the walks of docs/how-it-works.md: their steps exist, are few, and are what happens."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.source_trees import parsed
from tests.walk import ROOT, Walk, count, read, response_walk

PAGE = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
# Functions and changes of folder that a walk takes: it may become shorter, never longer.
MOST = {"response": (89, 28), "setting": (6, 4), "trait": (12, 7)}
# Steps that depend on who comes first: two runs of the same code differ by a few.
BY_CHANCE = 8


def functions_of(file: Path) -> set[str]:
    """`name`, `Class.name` and `function.name` of all that is defined in a file."""
    found: set[str] = set()

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(prefix + child.name)
                visit(child, f"{prefix}{child.name}.")
            else:
                visit(child, prefix)

    visit(parsed(file), "")
    return found


def steps_of(walk: Walk) -> list[str]:
    return [step for part in walk.values() for step in part]


@pytest.mark.parametrize("what", MOST)
def test_each_step_of_a_walk_exists_and_stands_once(what: str) -> None:
    steps = steps_of(read(PAGE, what))

    missing = [
        step
        for file, _, name in (step.partition(":") for step in steps)
        if not (ROOT / file).exists() or name not in functions_of(ROOT / file)
        for step in [f"{file}:{name}"]
    ]
    assert steps
    assert missing == []
    assert len(set(steps)) == len(steps)


@pytest.mark.parametrize("what", MOST)
def test_a_walk_stays_short(what: str) -> None:
    functions, changes = count(read(PAGE, what))

    assert functions <= MOST[what][0]
    assert changes <= MOST[what][1]


@pytest.mark.slow
def test_the_walk_of_a_response_is_what_a_run_does() -> None:
    shown, done = (set(steps_of(walk)) for walk in (read(PAGE, "response"), response_walk()))

    assert len(shown - done) <= BY_CHANCE, sorted(shown - done)
    assert len(done - shown) <= BY_CHANCE, sorted(done - shown)
