"""Finds what is wrong with a trait's JSON before a run spends anything on it, and makes the file
that a person fills in to define one.

An error is what keeps a definition from loading; a warning is what makes it worse than it could
be. JSON has no comments, so the template's advice sits under keys that begin with an underscore,
which every reader of trait files skips. What must be replaced is marked, and `check` reports it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from typing import Literal

from pydantic import ValidationError

from domain.traits.judge_prompt import PLACEHOLDERS, judge_prompt_placeholders, unknown_placeholders
from domain.traits.measure import Measure

TRAIT_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")  # also a folder's name, so no dots and no slashes

# columns beside the trait's
RESERVED = ("question", "prompt", "answer", "question_id", "coherence")

N_PAIRS, N_QUESTIONS = 5, 20  # the counts of the published trait files
LONG_WORDS = 1000  # a fourth of the room of many small models
FILL_IN = "FILL IN:"  # marks what a person still has to write in a template
_REQUIRED_KEYS = ("instruction", "questions", "eval_prompt")
_KEYS = (*_REQUIRED_KEYS, "eval_questions", "measure")
SCENARIOS = (("positive", "negative"), ("eval_positive", "eval_negative"))
"""The keys of a trait of scenarios in place of instructions and questions, pair by pair."""
_SCENARIO_KEYS = (*SCENARIOS[0], *SCENARIOS[1], "eval_prompt", "measure")
_PAIR_KEYS = ("pos", "neg")
_TEXT_KEYS = ("text", "question", "prompt")

# from so many on, those of a file without held-out ones are parted
N_PARTED = 2 * N_QUESTIONS

# Scenarios come in few pairs, so that one of three is held out where a file holds out none; with
# fewer than four held out even a perfect AUROC can hardly be told from chance.
SCENARIOS_BY_HELD_OUT, FEWEST_HELD_OUT = 3, 4

# With fewer pairs nothing can be said of others.
FEWEST_SCENARIOS = 8


@dataclass(frozen=True)
class Problem:
    """One finding: `where` is a path into the JSON like `questions[7]`, `message` says what to do.

    Findings in the second file of a two-file trait begin with `eval.`.
    """

    severity: Literal["error", "warning"]
    where: str
    message: str


def check_trait(data: object, name: str, *, eval_data: object = None) -> tuple[Problem, ...]:
    """Every problem of a trait's parsed JSON, in the order of the file.

    `eval_data` is the second file of the two-file layout, whose questions are the held-out ones.
    Keys that begin with an underscore are the author's notes and are not looked at.
    """
    return tuple(_problems(data, name, eval_data))


def eval_questions_of(data: Mapping[str, object], eval_data: object) -> tuple[str, object]:
    """Where the held-out questions are, and the questions: the file's own before the second's."""
    if "eval_questions" in data or eval_data is None:
        return "eval_questions", data.get("eval_questions", [])
    if isinstance(eval_data, Mapping):
        return "eval.questions", eval_data.get("questions", eval_data.get("eval_questions"))
    return "eval", eval_data


def question_of(question: object) -> object:
    """A question's text, which some files keep in an object; anything else as it is."""
    if isinstance(question, Mapping):
        return next((question[name] for name in _TEXT_KEYS if name in question), question)
    return question


def is_text(text: object) -> bool:
    """Whether a value can be one of a trait's texts."""
    return next(_check_text(text, ""), None) is None


def _problems(data: object, name: str, eval_data: object) -> Iterator[Problem]:
    yield from _check_name(name)
    if not isinstance(data, Mapping):
        keys = "instruction, questions, eval_prompt and eval_questions"
        yield _error("file", f"holds {_kind(data)}; a trait is an object with {keys}")
        return
    are_scenarios = has_scenarios(data)
    known = _SCENARIO_KEYS if are_scenarios else _KEYS
    yield from _check_keys(data, known, "")
    for key in (*SCENARIOS[0], "eval_prompt") if are_scenarios else _REQUIRED_KEYS:
        if key not in data and not (key == "eval_prompt" and "measure" in data):
            shape = "docs/traits.md" if are_scenarios else "`orchestrate traits new`"
            advice = f"see {shape} for the shape"
            yield _error(key, f"is missing; {_written_as(data, known, key) or advice}")
    if are_scenarios:
        yield from _check_scenarios(data)
    else:
        if "instruction" in data:
            yield from _check_instruction(data["instruction"])
        if "questions" in data:
            yield from _check_questions(data["questions"], "questions")
        yield from _check_eval_questions(data, eval_data)
    yield from _check_lengths(data)
    if "measure" in data:
        yield from _check_measure(data)
    elif "eval_prompt" in data:
        yield from _check_eval_prompt(data["eval_prompt"])


def _check_name(name: str) -> Iterator[Problem]:
    if not TRAIT_NAME.fullmatch(name):
        yield _error(
            "name",
            f"{name!r} cannot name a trait; use a small letter, then up to 63 small letters, "
            "digits and underscores",
        )
    elif name in RESERVED:
        yield _error("name", f"{name!r} is a column of every response table; choose another name")


def _check_keys(data: Mapping[str, object], known: Sequence[str], prefix: str) -> Iterator[Problem]:
    for key, meant in _meant(data, known).items():
        hint = f"did you mean {meant!r}?" if meant else "remove it, or begin it with _ as a note"
        yield _warning(f"{prefix}{key}", f"is an unknown key and has no effect; {hint}")


def _meant(data: Mapping[str, object], known: Sequence[str]) -> dict[str, str | None]:
    """The missing key that each unknown one was probably meant for."""
    missing = [key for key in known if key not in data]
    found: dict[str, str | None] = {}
    for key in data:
        if key not in known and not key.startswith("_"):
            # 0.5 so that "positive" still finds "pos".
            close = get_close_matches(key, missing, n=1, cutoff=0.5)
            found[key] = close[0] if close else None
    return found


def _written_as(data: Mapping[str, object], known: Sequence[str], key: str) -> str:
    """What to do about a missing key that stands there misspelled; empty where none does."""
    meant = _meant(data, known)
    written = next((one for one in meant if meant[one] == key), None)
    return f"{written!r} stands there: did you mean {key!r}?" if written else ""


def _check_instruction(pairs: object) -> Iterator[Problem]:
    if not isinstance(pairs, list):
        yield _error("instruction", f"is {_kind(pairs)}; make it a list of {{pos, neg}} objects")
        return
    if not pairs:
        yield _error("instruction", f"is empty; write {N_PAIRS} {{pos, neg}} pairs")
        return
    for i, pair in enumerate(pairs):
        yield from _check_pair(pair, f"instruction[{i}]")
    for side in _PAIR_KEYS:
        texts = [pair.get(side) if isinstance(pair, Mapping) else None for pair in pairs]
        yield from _check_duplicates(texts, "instruction", f".{side}")
    if len(pairs) != N_PAIRS:
        yield _warning("instruction", f"has {len(pairs)} instead of the usual {N_PAIRS} pairs")


def _check_pair(pair: object, where: str) -> Iterator[Problem]:
    if not isinstance(pair, Mapping):
        yield _error(where, f"is {_kind(pair)}; make it an object with pos and neg")
        return
    yield from _check_keys(pair, _PAIR_KEYS, f"{where}.")
    for side in _PAIR_KEYS:
        if side in pair:
            yield from _check_text(pair[side], f"{where}.{side}")
        else:
            advice = _written_as(pair, _PAIR_KEYS, side) or "write an instruction for this side"
            yield _error(f"{where}.{side}", f"is missing; {advice}")
    sides = [folded(pair.get(side)) for side in _PAIR_KEYS]
    if sides[0] and sides[0] == sides[1]:
        yield _error(where, "has the same text in pos and neg; make neg ask for the opposite")


def _check_questions(questions: object, where: str) -> Iterator[Problem]:
    if not isinstance(questions, list):
        yield _error(where, f"is {_kind(questions)}; make it a list of questions")
        return
    if not questions:
        yield _error(where, f"is empty; write {N_QUESTIONS} questions")
        return
    if all(isinstance(q, str) and not q.strip() for q in questions):
        yield _error(where, f"has {len(questions)} entries, all blank; write the questions")
        return
    questions = [question_of(question) for question in questions]
    for i, question in enumerate(questions):
        yield from _check_text(question, f"{where}[{i}]")
    yield from _check_duplicates(questions, where)
    if len(questions) != N_QUESTIONS:
        yield _warning(where, f"has {len(questions)} instead of the usual {N_QUESTIONS} questions")


def _check_eval_questions(data: Mapping[str, object], eval_data: object) -> Iterator[Problem]:
    if isinstance(eval_data, Mapping):
        yield from _check_keys(eval_data, (*_REQUIRED_KEYS, "eval_questions"), "eval.")
        if eval_data.get("eval_prompt", data.get("eval_prompt")) != data.get("eval_prompt"):
            message = "differs from the first file's, which is the one used"
            yield _warning("eval.eval_prompt", message)
    if eval_data is not None and "eval_questions" in data:
        yield _warning("eval_questions", "is used, and the second file's questions are not")
    where, held_out = eval_questions_of(data, eval_data)
    questions = data.get("questions")
    if held_out == [] and where == "eval_questions":
        parted = isinstance(questions, list) and len(questions) >= N_PARTED
        message = f"holds nothing back for verification; write {N_QUESTIONS} questions"
        if parted:
            message = f"holds nothing back, so {N_QUESTIONS} of the questions are"
        yield _warning(where, message)
        return
    for problem in _check_questions(held_out, where):
        # the second file may be left out, so what is wrong in it costs its question only
        yield problem if where == "eval_questions" else replace(problem, severity="warning")
    yield from _check_shared(questions, held_out, where, "questions")


def _check_shared(questions: object, held_out: object, where: str, among: str) -> Iterator[Problem]:
    if not (isinstance(questions, list) and isinstance(held_out, list)):
        return
    first = {folded(question_of(q)): i for i, q in reversed(list(enumerate(questions)))}
    for i, question in enumerate(held_out):
        if (text := folded(question_of(question))) and text in first:
            message = f"is also {among}[{first[text]}], so it is not held out; write a new one"
            yield _warning(f"{where}[{i}]", message)


def has_scenarios(data: Mapping[str, object]) -> bool:
    """Whether a trait's parsed JSON is one of scenarios."""
    return any(key in data for key in SCENARIOS[0])


def _check_scenarios(data: Mapping[str, object]) -> Iterator[Problem]:
    for keys in SCENARIOS:
        sides: list[list[object]] = []
        for key in keys:
            texts = data.get(key, [])
            if not isinstance(texts, list):
                yield _error(key, f"is {_kind(texts)}; make it a list of texts")
                return
            for i, text in enumerate(texts):
                yield from _check_text(text, f"{key}[{i}]")
            yield from _check_duplicates(texts, key)
            sides.append(texts)
        if len(sides[0]) != len(sides[1]):
            n_more = abs(len(sides[0]) - len(sides[1]))
            yield _warning(
                keys[1],
                f"has {len(sides[1])} scenarios for {len(sides[0])} in {keys[0]}, so the last "
                f"{n_more} of the longer are left out; give one of each to a pair, in one order",
            )
        for i, (text, other) in enumerate(zip(*sides, strict=False)):
            if folded(text) and folded(text) == folded(other):
                message = f"is the same text as {keys[0]}[{i}]; write the side without the trait"
                yield _warning(f"{keys[1]}[{i}]", message)
        n_pairs = min(map(len, sides))
        if keys == SCENARIOS[0] and n_pairs < FEWEST_SCENARIOS:
            message = f"has {n_pairs} pairs of scenarios; under {FEWEST_SCENARIOS} show little"
            # of none nothing can be made
            yield (_warning if n_pairs else _error)(keys[0], message)
    first, held_out = (keys[0] for keys in SCENARIOS)
    yield from _check_shared(data.get(first), data.get(held_out), held_out, first)


def _check_lengths(data: Mapping[str, object]) -> Iterator[Problem]:
    for key in ("instruction", "questions", "eval_questions", *SCENARIOS[0], *SCENARIOS[1]):
        entries = data.get(key)
        for i, entry in enumerate(entries if isinstance(entries, list) else ()):
            texts = entry.values() if isinstance(entry, Mapping) else (entry,)
            n_words = max((len(str(text).split()) for text in texts), default=0)
            if n_words > LONG_WORDS:
                message = f"has {n_words:,} words; models without room for them refuse the prompt"
                yield _warning(f"{key}[{i}]", message)


def _check_eval_prompt(prompt: object) -> Iterator[Problem]:
    yield from _check_text(prompt, "eval_prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        return
    unknown = unknown_placeholders(prompt)
    for name in PLACEHOLDERS:
        if name not in judge_prompt_placeholders(prompt):
            hint = f" (instead of {{{unknown[0]}}}?)" if unknown else ""
            message = f"has no {{{name}}}; put it where the {name} goes{hint}"
            yield _error("eval_prompt", message)
    for name in unknown:
        message = f"has {{{name}}}, which nothing fills; only {{question}} and {{answer}} are known"
        yield _warning("eval_prompt", message)
    # one after the other: as one pattern it takes minutes on a text full of zeros
    zero = re.search(r"\b0\b", prompt)
    if zero is None or not re.search(r"\b100\b", prompt[zero.end() :]):
        message = "does not ask for a number; end it with: reply with a number from 0 to 100"
        yield _warning("eval_prompt", message)


def _check_measure(data: Mapping[str, object]) -> Iterator[Problem]:
    if "eval_prompt" in data:
        message = "has no effect beside a measure, which is what scores; remove one of them"
        yield _warning("eval_prompt", message)
    try:
        Measure.model_validate(data["measure"])
    except ValidationError as error:
        for one in error.errors():
            where = ".".join(["measure", *map(str, one["loc"])])
            yield _error(where, one["msg"].removeprefix("Value error, "))


def _check_text(text: object, where: str) -> Iterator[Problem]:
    """What keeps a value from being one of a trait's texts."""
    if not isinstance(text, str):
        yield _error(where, f"is {_kind(text)}; make it a text in quotes")
    elif not text.strip():
        yield _error(where, "is blank; write it or remove the entry")
    elif FILL_IN in text:
        yield _error(where, f"still has the template's words; replace what begins with {FILL_IN!r}")
    elif any("\ud800" <= character <= "\udfff" for character in text):
        yield _error(where, r"holds half a character (\ud800 to \udfff alone); write it out")


def _check_duplicates(texts: Sequence[object], where: str, side: str = "") -> Iterator[Problem]:
    """Texts that repeat an earlier one of the list but for case and spacing; `side` is `.pos`."""
    first: dict[str, int] = {}
    for i, text in enumerate(map(folded, texts)):
        if not text:
            continue
        if text in first:
            message = f"repeats {where}[{first[text]}]{side}; write a different one"
            yield _warning(f"{where}[{i}]{side}", message)
        first.setdefault(text, i)


def folded(text: object) -> str:
    """The text without regard to case and spacing; empty for what is not a text."""
    return " ".join(text.casefold().split()) if isinstance(text, str) else ""


def _kind(value: object) -> str:
    """A JSON value's type in a reader's words."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text"}
    names |= {list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _error(where: str, message: str) -> Problem:
    """A problem that keeps the definition from loading."""
    return Problem("error", where, message)


def _warning(where: str, message: str) -> Problem:
    """A problem that a run can live with."""
    return Problem("warning", where, message)


def trait_template(name: str) -> dict[str, object]:
    """A trait file with advice, whose instructions and questions are still to be written."""
    text = files("domain").joinpath("traits", "template.json").read_text(encoding="utf-8")
    body: dict[str, object] = json.loads(text.replace("<name>", name))
    return body
