"""Protects the table of reply shapes: each is in one class; only clean answers pass the gate."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.redaction import Redactor
from domain.scoring.replies import scoring
from domain.scoring.reply_limits import (
    MAX_ALTERNATIVES,
    MAX_TEXT,
    MAX_TOKEN,
    MAX_TOKENS_STATED,
    MAX_WORDS,
)
from domain.scoring.reply_shapes import NoAnswer, most_usage, read_reply
from domain.scoring.scores import Evidence, Mode, Reply, Score, Unscored
from storage.record.scorings import decode_scorings, encode_scorings
from tests.reply_shapes import SHAPES, chat, impossible, said
from workers.judge.profile import JudgeProfile

KEY = "sk-planted-0123456789abcdef"
ASKED = JudgeProfile().body("m", "How good is this? " * 20)


def seen(status: int, body: Any) -> Reply | NoAnswer:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return read_reply(status, content, asked=ASKED, hide=Redactor.of([KEY]))


def becomes(found: Reply | NoAnswer, mode: Mode = "logprob") -> str:
    """What a reply is, or makes of a scoring."""
    if isinstance(found, NoAnswer):
        return found.reason if found.kind == "text" else found.kind
    one = scoring(Evidence(replies=(found,), mode=mode))
    return str(round(one.value)) if isinstance(one, Score) else one.reason


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_of_a_known_server_is_what_it_is(name: str) -> None:
    status, body, expected = SHAPES[name]

    assert becomes(seen(status, body)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>Is it 3 or 10? It is mild.</think>10", "10"),
        ("<think>\nhm\n</think>\n\n**85**", "85"),
        ("well, 3 or 10...</think>10", "10"),
        ("[THINK]4[/THINK]7", "7"),
        ("<|channel|>analysis<|message|>5?<|end|><|channel|>final<|message|>20", "20"),
        ("<think>Is it 3", "empty"),
        ('<think>a</think>{"score": 12}', "12"),
        ("[" * 50_000, "unparseable"),
        ("<answer>" * 12_000, "unparseable"),
        ("<answer>" + " " * 90_000, "unparseable"),
    ],
)
def test_the_answer_stands_behind_the_reasoning(text: str, expected: str) -> None:
    # a search that goes back over these lengths would meet the suite's time limit
    assert becomes(seen(200, said(text)), "text") == expected


def test_the_answers_token_is_looked_for_behind_the_reasoning() -> None:
    words = ["<think>", "3", "</think>", "\n\n", "80"]
    content = [{"token": w, "top_logprobs": [{"token": w, "logprob": 0.0}]} for w in words]
    body = chat({"content": "".join(words)}, logprobs={"content": content})

    assert becomes(seen(200, body)) == "80"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([{"error": {"message": "Multiple candidates are not enabled"}}], "Multiple candidates"),
        ({"error": "model 'x' not found"}, "model 'x' not found"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "extra inputs"}]}, "extra inputs"),
        ({"object": "error", "message": "no logprobs"}, "no logprobs"),
        ("<h1>Who are\n you?</h1>", "Who are you?"),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": "boo"}}}, "boo"),
    ],
)
def test_the_words_of_each_provider_are_shown(body: Any, words: str) -> None:
    found = seen(400, body)

    assert isinstance(found, NoAnswer) and words in found.words


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -5, "completion_tokens": -5}, {
    "prompt_tokens": math.inf, "completion_tokens": 1}, {"prompt_tokens": 10**12,
    "completion_tokens": 1}, {"prompt_tokens": 0, "completion_tokens": 0}, "many", {
    "prompt_tokens": True, "completion_tokens": "x"}])  # fmt: skip
def test_usage_that_is_not_or_cannot_be_is_the_most_the_request_could_use(usage: Any) -> None:
    found = seen(200, {**impossible(None), "usage": usage})

    assert isinstance(found, Reply) and not found.usage_stated
    assert (found.prompt_tokens, found.completion_tokens) == most_usage(ASKED)


@pytest.mark.parametrize("key", [KEY, KEY[:14], KEY.encode().hex()])
def test_a_key_that_a_judge_repeats_is_kept_nowhere(key: str) -> None:
    tops = [{"token": key, "logprob": -0.1}]
    content = [{"token": "7", "top_logprobs": tops}]
    answer = {**chat({"content": f"7 {key}"}, finish=key, logprobs={"content": content})}

    found = seen(200, {**answer, "model": key})
    fault = seen(400, {"error": {"message": f"who is {key}?", "param": key}})

    assert isinstance(found, Reply) and key not in found.model_dump_json()
    assert isinstance(fault, NoAnswer) and key not in repr(fault)


# Everything JSON has, and what Python's reader takes beyond it.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**40, -(10**40), 1.0, -9999.0, math.nan, math.inf, -math.inf]),
    st.floats(),
    st.text(st.characters(), max_size=12),
    st.sampled_from(["\ud83d", "50", "error", "content_filter", KEY, "<think>", "\0"]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def mostly(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A field as it should be, or anything."""
    return value | JSON


TOKEN = st.fixed_dictionaries(
    {"token": mostly(st.sampled_from(["5", "85", "REF", " "])), "logprob": mostly(st.floats(-9, 0))}
)
CHOICE = st.fixed_dictionaries(
    {
        "message": mostly(st.fixed_dictionaries({"content": mostly(st.text(max_size=9))})),
        "finish_reason": mostly(st.sampled_from(["stop", "length", "error"])),
    },
    optional={
        "error": JSON,
        "logprobs": mostly(
            st.fixed_dictionaries(
                {
                    "content": mostly(
                        st.lists(
                            TOKEN.flatmap(
                                lambda one: st.lists(mostly(TOKEN), max_size=4).map(
                                    lambda tops: {**one, "top_logprobs": tops}
                                )
                            ),
                            max_size=3,
                        )
                    )
                }
            )
        ),
    },
)
BODY = mostly(
    st.fixed_dictionaries(
        {"choices": mostly(st.lists(mostly(CHOICE), max_size=2))},
        optional={
            "error": JSON,
            "usage": mostly(
                st.fixed_dictionaries({"prompt_tokens": JSON, "completion_tokens": JSON})
            ),
            "model": JSON,
        },
    )
    | st.fixed_dictionaries(
        {
            "error": mostly(
                st.dictionaries(
                    st.sampled_from(["code", "type", "message", "param", "details", "metadata"]),
                    JSON,
                )
            )
        }
    )
)
STATUS = st.sampled_from([200, 200, 200, 204, 302, 400, 401, 403, 404, 413, 422, 429, 500, 529])


def check(status: int, content: bytes) -> None:
    found = read_reply(status, content, asked=ASKED, hide=Redactor.of([KEY]))

    if isinstance(found, NoAnswer):
        assert found.kind in ("text", "form", "heals", "lasts")
        assert len(found.words) <= MAX_WORDS + 100 and KEY not in found.words
        found.words.encode()
        return
    assert status < 300
    assert 0 <= found.prompt_tokens <= MAX_TOKENS_STATED
    assert 0 <= found.completion_tokens <= MAX_TOKENS_STATED
    assert len(found.text) <= MAX_TEXT
    for tops in (found.candidates, *(one.candidates for one in found.following)):
        assert len(tops) <= MAX_ALTERNATIVES
        assert all(0 <= top.probability <= 1 and len(top.token) <= MAX_TOKEN for top in tops)
    # what passed can be stored, read and judged again, in every mode
    for mode in ("logprob", "structured", "text"):
        one = scoring(Evidence(replies=(found,), mode=mode))
        data = encode_scorings([("k", "trait", one)])
        assert KEY.encode() not in data
        (back,) = decode_scorings(data).values()
        assert back == one
        assert isinstance(one, Unscored) or 0 <= one.value <= 100.0001


@given(STATUS, BODY)
def test_every_reply_is_in_one_class_and_an_answer_can_be_stored(status: int, body: Any) -> None:
    check(status, json.dumps(body).encode())


@given(STATUS, st.binary(max_size=200))
def test_every_row_of_bytes_is_in_one_class(status: int, content: bytes) -> None:
    check(status, content)


@pytest.mark.parametrize("size", [10_000, 100_000])
def test_an_enormous_answer_is_bounded(size: int) -> None:
    tops = [{"token": "x" * size, "logprob": -1}] * 300
    content = [{"token": "7", "top_logprobs": tops}]

    check(200, json.dumps(chat({"content": "9" * size}, logprobs={"content": content})).encode())
    check(400, json.dumps({"error": {"message": "no " * size}}).encode())
    check(200, b"[" * size)
    check(200, b'{"choices": ' * size)
    check(400, b'{"detail": [' * 400 + b"]}" * 400)
