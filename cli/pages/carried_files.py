"""The data files that the viewer opens with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domain.errors import UsageError
from storage.files.reading import read_text
from storage.files.scored import json_or_lines

SUFFIXES = (".json", ".jsonl")


@dataclass(frozen=True)
class CarriedFile:
    """A data file the viewer opens with: the name people see, and its JSON text."""

    name: str
    text: str


def expanded_paths(paths: Sequence[Path]) -> list[Path]:
    """The files named, a folder standing for those directly in it."""
    found: list[Path] = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not inside:
            raise UsageError(f"{path} holds no .json or .jsonl file: name the files themselves")
        found += inside
    return found


def carried_files(paths: Sequence[Path]) -> list[CarriedFile]:
    """Files, and those of folders, for the page to open with; raises UsageError for what it could
    not read."""
    found = expanded_paths(paths)
    names = [path.name for path in found]
    whole = [path.resolve() for path in found]
    shared = os.path.commonpath([path.parent for path in whole]) if whole else ""
    # Two files of one name, from two folders, are told apart by where their paths part: a page is
    # given to others, and what is above is this machine's.
    return [
        CarriedFile(
            path.name if names.count(path.name) == 1 else one.relative_to(shared).as_posix(),
            _text(path),
        )
        for path, one in zip(found, whole, strict=True)
    ]


def _text(path: Path) -> str:
    text = read_text(path)
    if not text.strip():
        raise UsageError(f"{path} is empty: give JSON or JSON lines")
    json_or_lines(text, str(path))  # the page would say it later, and of all files at once
    return text
