"""Finds and reads trait definitions: the bundled ones and people's own JSON files.

A reference is a bundled name or a path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from io import StringIO
from pathlib import Path

from domain.errors import TraitFileError, UsageError
from domain.traits.check import TRAIT_NAME, Problem, check_trait
from domain.traits.definition import BUNDLED_TRAITS, MEASURED_TRAITS, TraitDefinition
from storage.files.reading import MOST_WRITTEN_BYTES, parsed_json, read_text

# Names that say "definition" and not which trait; there the folder has the trait's name.
_NAMELESS_STEMS = ("definition", "trait_definition")

_EXTRACT_FOLDER, _EVAL_FOLDER = "trait_data_extract", "trait_data_eval"


# Of trait-interp since 2026: texts that call the trait up by themselves, without an instruction,
# one a line and in pairs; what the trait is; and questions to steer with, rarely a judge's prompt.
_SCENARIOS, _ABOUT, _STEERING = ("positive.txt", "negative.txt"), "definition.txt", "steering.json"
_WITH_SYSTEM = ("positive.jsonl", "negative.jsonl")

_SCENARIO_PROMPT = """\
You are rating how much of the trait **{name}** is in how a text goes on.

What the trait is: {about}

[QUESTION START]
{{question}}
[QUESTION END]
[ANSWER START]
{{answer}}
[ANSWER END]

The question is how the text began; rate the answer, which is how it went on. 0 means that the trait
is not in it at all, 100 that it is there as strongly as can be.
Respond with a number between 0 and 100. Don't say anything else, just the number."""


@dataclass(frozen=True)
class TraitSource:
    """A trait's parsed JSON before any check; `eval_data` is None where there is one file, and
    `eval_problem` says why a second one is left out. `file` is as it was named, empty for a bundled
    trait."""

    name: str
    data: object
    eval_data: object = None
    eval_problem: str = ""
    file: str = ""

    @property
    def about(self) -> str:
        """The author's one line about the trait, empty where there is none."""
        about = self.data.get("_about", "") if isinstance(self.data, Mapping) else ""
        return about if isinstance(about, str) else ""

    def problems(self) -> tuple[Problem, ...]:
        """What is wrong in the file, or the two."""
        found = check_trait(self.data, self.name, eval_data=self.eval_data)
        if not self.eval_problem:
            return found
        return (Problem("warning", "eval", f"is left out: {self.eval_problem}"), *found)

    def warnings(self) -> tuple[str, ...]:
        """What makes the file worse than it could be, in sentences; of a bundled trait nothing."""
        found = self.problems() if self.file else ()
        return tuple(
            f"{self.file}: {one.where}: {one.message}" for one in found if one.severity == "warning"
        )

    def definition(self) -> TraitDefinition:
        """The definition in it, with held-out questions that are no others; raises TraitFileError
        when it cannot be used."""
        found = TraitDefinition.from_json(
            self.name, self.data, eval_data=self.eval_data, file=self.file
        )
        return found.held_apart()


def read_traits(refs: str) -> tuple[TraitSource, ...]:
    """What `all`, or a comma-separated list of names and paths, points to, in that order.

    Raises UsageError for an unknown or repeated trait, TraitFileError for what is not JSON.
    """
    sources: list[TraitSource] = []
    seen: dict[str, str] = {}
    for ref in split_refs(refs):
        source = read_trait(ref)
        if source.name in seen:
            raise UsageError(
                f"{seen[source.name]!r} and {ref!r} are both the trait {source.name!r}: "
                "leave one out or rename its file"
            )
        seen[source.name] = ref
        sources.append(source)
    return tuple(sources)


def load_trait(ref: str) -> TraitDefinition:
    """The definition that a bundled name or a path to a JSON file refers to.

    Raises UsageError when there is nothing there, TraitFileError when it cannot be used.
    """
    return read_trait(ref).definition()


def split_refs(refs: str) -> list[str]:
    """The references in a comma-separated list, `all` standing for the bundled ones that a
    judge reads, `measured` for the others."""
    named = [ref.strip() for ref in refs.split(",")]
    groups = {"all": BUNDLED_TRAITS, "measured": MEASURED_TRAITS}
    found = [one for ref in named if ref for one in groups.get(ref, (ref,))]
    if not found:
        raise UsageError("no trait is named: write `all`, or names and paths with commas between")
    return found


def read_trait(ref: str) -> TraitSource:
    """The parsed JSON that a reference points to, unchecked.

    Raises UsageError when there is nothing there, TraitFileError when it is not JSON.
    """
    if ref in (*BUNDLED_TRAITS, *MEASURED_TRAITS):
        folder = "measured" if ref in MEASURED_TRAITS else "bundled"
        resource = files("domain").joinpath("traits", folder, f"{ref}.json")
        return TraitSource(ref, _parsed(resource.read_text(encoding="utf-8"), f"bundled {ref}"))
    path = Path(ref).expanduser().absolute()  # the folder's name matters, even for a bare name
    home = path if path.is_dir() else path.parent
    scenarios = (*_SCENARIOS, *_WITH_SYSTEM)
    is_of_folder = path.is_dir() or path.name in (*scenarios, _ABOUT, _STEERING)
    if is_of_folder and any((home / name).is_file() for name in scenarios):
        return _scenarios(home, ref)
    data = _read(path, ref)
    eval_path = path.parent.parent / _EVAL_FOLDER / path.name
    eval_data, eval_problem = None, ""
    if path.parent.name == _EXTRACT_FOLDER and eval_path.is_file():
        try:
            eval_data = _read(eval_path, str(eval_path))
        except TraitFileError as error:
            eval_problem = str(error)
    folder = _trait_name(path.parent.name)
    is_nameless = path.stem in _NAMELESS_STEMS and TRAIT_NAME.fullmatch(folder)
    name = folder if is_nameless else _trait_name(path.stem)
    return TraitSource(name, data, eval_data, eval_problem, ref)


def _scenarios(folder: Path, ref: str) -> TraitSource:
    """The trait of a folder of scenarios."""
    if any((folder / name).is_file() for name in _WITH_SYSTEM):
        raise TraitFileError(
            f"{folder} has scenarios with system prompts (.jsonl), which are instructions: write "
            "them as a trait file's instruction and questions (`orchestrate traits new`)"
        )
    texts = {}
    for name in (*_SCENARIOS, _ABOUT):
        if not (folder / name).is_file():
            raise TraitFileError(
                f"{folder} has no {name}: a folder of scenarios has positive.txt and negative.txt, "
                "a scenario a line and in pairs, and definition.txt, which tells the judge what "
                "the trait is"
            )
        texts[name] = _text_of(folder / name)
    # universal newlines, where str.splitlines would part at others that stand within texts
    pos, neg = (
        [line.strip() for line in StringIO(texts[one], newline=None) if line.strip()]
        for one in _SCENARIOS
    )
    steering = _read(folder / _STEERING, "") if (folder / _STEERING).is_file() else {}
    own = steering.get("eval_prompt") if isinstance(steering, Mapping) else None
    name, about = _trait_name(folder.name), texts[_ABOUT].strip()
    # a brace of a judge's prompt is written twice
    filled = {"name": name.replace("_", " "), "about": re.sub(r"([{}])", r"\1\1", about)}
    prompt = own or _SCENARIO_PROMPT.format(**filled)
    data = {"_about": " ".join(about.split()), "positive": pos, "negative": neg}
    return TraitSource(name, {**data, "eval_prompt": prompt}, file=ref)


def _text_of(path: Path) -> str:
    try:
        return read_text(path, most=MOST_WRITTEN_BYTES)
    except UsageError as error:
        raise TraitFileError(str(error)) from error


def _trait_name(stem: str) -> str:
    """The name that a file or folder means: Big-Five becomes big_five."""
    return re.sub(r"[\s-]+", "_", stem).lower()


def _read(path: Path, ref: str) -> object:
    if not path.exists():
        raise UsageError(_not_found(ref))
    return _parsed(_text_of(path), str(path))


def _not_found(ref: str) -> str:
    if "/" in ref or ref.endswith(".json"):
        return f"there is no file {ref}: check the path, or make one with `orchestrate traits new`"
    close = get_close_matches(ref.lower(), (*BUNDLED_TRAITS, *MEASURED_TRAITS), n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"unknown trait {ref!r}: {hint}`orchestrate traits list` shows the bundled ones, "
        f"and your own is named by its path, such as ./{ref}.json"
    )


def _parsed(text: str, where: str) -> object:
    try:
        return parsed_json(text)
    except json.JSONDecodeError as error:
        raise TraitFileError(
            f"{where} is not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except ValueError as error:
        raise TraitFileError(f"{where} is no trait definition: {error}") from error
