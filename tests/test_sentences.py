"""Protects that decisions are made on values: no product code compares or searches a sentence.

A sentence is a constant of two words or more. Seen are constants, and names that the same file
gives to them or to collections of them, in a comparison, in `in`, in a `match` case, as a key that
a dictionary is looked into by, and as what a text is searched, cut or stripped by. Not seen are
sentences of one word, and those that come from another file or are put together at run time.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.source_trees import parsed

ROOT = Path(__file__).parent.parent
OURS = ("domain", "traitlens", "storage", "workers", "tasks", "orchestrator", "cli", "demo")
SENTENCE = re.compile(r"[A-Za-z]{2,}[ ,:]+[A-Za-z]{2,}")
SEARCHES = {
    *("startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition", "split"),
    *("find", "rfind", "index", "rindex", "count", "replace", "get"),
    *("search", "match", "fullmatch", "findall", "finditer", "compile"),
}

# Words of others that nothing but their text tells apart, and those of our own template.
ALLOWED = {
    "domain/scoring/replies.py": "what a judge answered",
    "workers/judge/server.py": "what a judge is asked, by whatever client",
    "workers/judge/profile.py": "why a judge's server refused a call",
    "workers/models/model.py": "why the hub gave no model",
    "domain/traits/check.py": "the mark that a template has people replace",
    "domain/traits/draft.py": "our template's closing words, cut for traits that decline",
}


def texts(node: ast.AST | None, names: dict[str, ast.expr]) -> Iterator[str]:
    """The constants that a node stands for; of a dictionary its keys."""
    if isinstance(node, ast.Name):
        node = names.get(node.id)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    parts = node.values if isinstance(node, ast.JoinedStr) else getattr(node, "elts", [])
    for part in node.keys if isinstance(node, ast.Dict) else parts:
        yield from texts(part, {})


def decided_on(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of each constant that something is compared with or searched for."""
    names = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        looked_at: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            looked_at = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            looked_at = [node.value]
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            found = names.get(node.value.id)
            looked_at = [node.slice, *([found] if isinstance(found, ast.Dict) else [])]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            looked_at = node.args[:1] if node.func.attr in SEARCHES else []
        for one in looked_at:
            yield from ((one.lineno, text) for text in texts(one, names))


def sentences(file: Path) -> list[str]:
    tree = parsed(file)
    name = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else file.name
    return [f"{name}:{line}: {t}" for line, t in decided_on(tree) if SENTENCE.search(t)]


@pytest.mark.parametrize("folder", OURS)
def test_nothing_is_decided_on_a_sentence(folder: str) -> None:
    found = [text for file in sorted((ROOT / folder).rglob("*.py")) for text in sentences(file)]

    assert [text for text in found if text.partition(":")[0] not in ALLOWED] == []


def test_every_file_that_may_is_one_that_does() -> None:
    assert [name for name in ALLOWED if not sentences(ROOT / name)] == []


@pytest.mark.parametrize(
    "line",
    [
        "reason.startswith(('positive with', 'negative with'))",
        "'cannot write' in said",
        "metrics['verdict'] != 'do not use'",
        "re.search('left-out questions', note)",
        "FALLS[reason]",
        "reason in KNOWN",
        "WORDS = f'contrast under {limit}'\nreason == WORDS",
    ],
)
def test_a_decision_on_a_sentence_is_seen(line: str, tmp_path: Path) -> None:
    known = "FALLS = {'its pair was not kept': 1}\nKNOWN = ('empty response', 'kept')\n"
    (tmp_path / "a.py").write_text(known + line)

    assert sentences(tmp_path / "a.py")
