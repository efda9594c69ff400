"""Protects people's files: each kind is read by its columns, and what cannot be is named."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.errors import UsageError
from storage.files.transcripts import Turn, read_transcripts


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_each_line_of_a_text_file_is_a_prompt(tmp_path: Path) -> None:
    found = read_transcripts(written(tmp_path, "p.txt", "How are you?\n\nWhat is rain?\n"))

    assert [one.shown for one in found] == ["How are you?", "What is rain?"]


def test_columns_are_found_by_any_of_their_names(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "response": "b", "score": 3},
        {"question": "a", "answer": "b", "system": "s"},
        {"user": "a", "completion": "b"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)

    found = read_transcripts(written(tmp_path, "t.jsonl", lines))

    assert [(one.shown, one.response) for one in found] == [("a", "b")] * 3
    assert found[0].facts == {"score": 3}
    assert found[1].turns[0] == Turn("system", "s")


def test_messages_that_end_with_the_assistant_hold_the_response(tmp_path: Path) -> None:
    chat = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    text = json.dumps([{"messages": chat}, {"messages": chat[:3]}])

    whole, open_end = read_transcripts(written(tmp_path, "chats.json", text))

    assert (whole.shown, whole.response) == ("c", "d")
    assert whole.turns == open_end.turns
    assert open_end.response is None


def test_a_table_of_persona_vectors_keeps_its_rendered_prompt(tmp_path: Path) -> None:
    text = 'question,prompt,answer,question_id,evil\n"Q?","<bos>Q?<end>","A, b",evil_0_pos_0,97\n'

    (found,) = read_transcripts(written(tmp_path, "pos.csv", text))

    assert (found.rendered, found.response, found.shown) == ("<bos>Q?<end>", "A, b", "Q?")
    assert found.facts == {"question_id": "evil_0_pos_0", "evil": "97"}


def test_ids_that_ran_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    row = {"question": "q", "prompt": "<q>", "response": "r"}
    ids = {"prompt_token_ids": [1, 2], "response_token_ids": [3]}
    pq.write_table(pa.Table.from_pylist([row | ids]), path)

    (found,) = read_transcripts(path)

    assert (found.prompt_ids, found.response_ids) == ((1, 2), (3,))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.docx", "x", "no known kind"),
        ("p.json", "{", "is not json"),
        ("p.jsonl", "", "holds no rows"),
        ("p.jsonl", '{"text": "x"}', "row 1 holds no prompt"),
        ("p.json", "[3]", "neither a text nor an object"),
        ("p.json", '{"messages": [{"role": "tool", "content": "x"}]}', "a role of system"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_transcripts(written(tmp_path, name, text))


def test_a_line_ends_where_the_file_says_and_not_inside_a_text(tmp_path: Path) -> None:
    odd = "one\u2028two\x85three\x0bfour\x0cfive"
    row = json.dumps({"prompt": odd, "response": odd}, ensure_ascii=False)

    texts = read_transcripts(written(tmp_path, "p.txt", f"{odd}\r\nnext\r\n"))
    rows = read_transcripts(written(tmp_path, "p.jsonl", f"{row}\r\n\r\n{row}\n"))

    assert [one.shown for one in texts] == [odd, "next"]
    assert [one.response for one in rows] == [odd, odd]


def test_a_column_that_json_cannot_hold_is_left_out_and_ours_are_kept_apart(tmp_path: Path) -> None:
    row = '{"prompt": "a", "response": "b", "score": NaN, "top": -Infinity, "beside": 0, "n": 1}'

    (found,) = read_transcripts(written(tmp_path, "t.jsonl", row))

    assert found.facts == {"data_beside": 0, "n": 1}


@pytest.mark.parametrize("ids", ['["x"]', "[null]", "[1.5]", "[NaN]", "[-1]"])
def test_ids_that_are_none_are_named(tmp_path: Path, ids: str) -> None:
    row = f'{{"prompt": "a", "response": "b", "prompt_token_ids": {ids}}}'

    with pytest.raises(UsageError, match="row 1: prompt_token_ids holds more than token ids"):
        read_transcripts(written(tmp_path, "t.jsonl", row))


@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
def test_a_file_of_brackets_is_no_fault_of_the_program(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not json"):
        read_transcripts(written(tmp_path, name, "[" * 100_000))
