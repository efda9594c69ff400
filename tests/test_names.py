"""Protects the names of the house: no class is called like another, and old words stay away."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

from tests.source_trees import parsed
from tests.test_imports import OURS, ROOT

# Words that docs/glossary.md replaced by the field's, as parts of names.
REPLACED = re.compile(
    r"(^|_)(lanes?|shelf|shelves|live_rows?|beginnings?|seals?|sealed|sealing)(_|$)"
    r"|Lane|Shelf|LiveRow|Beginning|Seal[A-Z]?"
)


def trees() -> dict[Path, ast.Module]:
    files = [file for folder in OURS for file in sorted((ROOT / folder).rglob("*.py"))]
    return {file.relative_to(ROOT): parsed(file) for file in files}


def test_no_two_classes_have_one_name() -> None:
    classes = Counter(
        node.name
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )

    assert [name for name, times in classes.items() if times > 1] == []


def test_what_is_defined_bears_no_replaced_word() -> None:
    named = [
        f"{file}:{node.name}"
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and REPLACED.search(node.name)
    ]

    assert named == []


def test_the_glossary_leads_to_rooms_that_exist_and_leaves_none_out() -> None:
    told = set(re.findall(r"`(\w+/(?:\w+/)?)`", (ROOT / "docs/glossary.md").read_text()))
    rooms = {f"{file.parent.as_posix()}/" for file in trees() if file.parts[0] != "demo"}
    top = {f"{file.parts[0]}/" for file in trees()}

    assert told - rooms - top == set()
    assert {room for room in rooms - told - top if room.count("/") > 1} == set()
