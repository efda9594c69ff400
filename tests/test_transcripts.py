"""Protects people's files: each kind is read by its columns, and what cannot be is named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from cli.main import orchestrate as orchestrate_group
from cli.options.using import prompt_options_of
from domain.errors import UsageError
from storage.files import reading
from storage.files.transcripts import Transcript, Turn, read_transcripts


def read(path: Path) -> list[Transcript]:
    """All rows of a file in which every row can be read."""
    found = read_transcripts(path)
    assert found.unread == []
    return found.read


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_each_line_of_a_text_file_is_a_prompt(tmp_path: Path) -> None:
    found = read(written(tmp_path, "p.txt", "How are you?\n\nWhat is rain?\n"))

    assert [one.shown for one in found] == ["How are you?", "What is rain?"]


@pytest.mark.parametrize(
    "row",
    [
        "cut \ud83d",
        {"prompt": "cut \ud83d", "response": "b"},
        {"prompt": "a", "response": "cut \ud83d"},
        {"prompt": "a", "response": "b", "source": "cut \ud83d"},
        {"messages": [{"role": "user", "content": "cut \ud83d"}]},
    ],
)
def test_half_a_character_costs_its_own_row(tmp_path: Path, row: object) -> None:
    rows = [{"prompt": "whole \U0001f600", "response": "b"}, row]
    lines = "".join(json.dumps(one) + "\n" for one in rows)

    found = read_transcripts(written(tmp_path, "t.jsonl", lines))

    assert [one.shown for one in found.read] == ["whole \U0001f600"]
    assert len(found.unread) == 1


@pytest.mark.parametrize("given", [{"texts": ("caf\udce9",)}, {"system": "caf\udce9"}])
def test_an_argument_that_is_no_text_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        prompt_options_of({"texts": ("How are you?",), "file": None, "system": None, **given})


@pytest.mark.parametrize(
    "command",
    [
        ("screen", "r", "FILE"),
        ("monitor", "r", "--prompts", "FILE"),
        ("steer", "r", "--add", "evil=1", "--prompts", "FILE"),
        ("view", "FILE"),
    ],
    ids=lambda command: command[0],
)
def test_what_is_read_is_not_written_over(command: tuple[str, ...], tmp_path: Path) -> None:
    file = written(tmp_path, "data.json", json.dumps([{"prompt": "Hi", "response": "Hello."}]))
    other_name = tmp_path / "link.json"
    other_name.symlink_to(file)
    arguments = [str(file) if one == "FILE" else one for one in command]

    ended = CliRunner().invoke(orchestrate_group, [*arguments, "--output", str(other_name)])

    assert isinstance(ended.exception, UsageError) and "link.json" in str(ended.exception)
    assert "Hello." in file.read_text()


def test_columns_are_found_by_any_of_their_names(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "response": "b", "score": 3},
        {"question": "a", "answer": "b", "system": "s"},
        {"user": "a", "completion": "b"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)

    found = read(written(tmp_path, "t.jsonl", lines))

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

    whole, open_end = read(written(tmp_path, "chats.json", text))

    assert (whole.shown, whole.response) == ("c", "d")
    assert whole.turns == open_end.turns
    assert open_end.response is None


def test_a_table_of_persona_vectors_keeps_its_rendered_prompt(tmp_path: Path) -> None:
    text = 'question,prompt,answer,question_id,evil\n"Q?","<bos>Q?<end>","A, b",evil_0_pos_0,97\n'

    (found,) = read(written(tmp_path, "pos.csv", text))

    assert (found.rendered, found.response, found.shown) == ("<bos>Q?<end>", "A, b", "Q?")
    assert found.facts == {"question_id": "evil_0_pos_0", "evil": "97"}


def test_ids_that_ran_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    row = {"question": "q", "prompt": "<q>", "response": "r"}
    ids = {"prompt_token_ids": [1, 2], "response_token_ids": [3]}
    pq.write_table(pa.Table.from_pylist([row | ids]), path)

    (found,) = read(path)

    assert (found.prompt_ids, found.response_ids) == ((1, 2), (3,))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.docx", "x", "no known kind"),
        ("p.json", "{", "is not json"),
        ("p.jsonl", "", "holds no rows"),
        ("p.jsonl", '{"text": "x"}', "row 1 holds no prompt"),
        ("p.json", "[3]", "neither a text nor an object"),
        ("p.json", '{"messages": [{"role": "judge", "content": "x"}]}', "unknown role, 'judge'"),
        ("p.json", '{"messages": [{"role": "assistant", "content": "x"}]}', "nothing in it is a"),
        ("p.json", '{"data": [{"x": 1}, {"x": 2}]}', "row 1 holds no prompt.*none of the 1 others"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(written(tmp_path, name, text))


def test_a_line_ends_where_the_file_says_and_not_inside_a_text(tmp_path: Path) -> None:
    odd = "one\u2028two\x85three\x0bfour\x0cfive"
    row = json.dumps({"prompt": odd, "response": odd}, ensure_ascii=False)

    texts = read(written(tmp_path, "p.txt", f"{odd}\r\nnext\r\n"))
    rows = read(written(tmp_path, "p.jsonl", f"{row}\r\n\r\n{row}\n"))

    assert [one.shown for one in texts] == [odd, "next"]
    assert [one.response for one in rows] == [odd, odd]


def test_a_column_that_json_cannot_hold_is_left_out_and_ours_are_kept_apart(tmp_path: Path) -> None:
    row = '{"prompt": "a", "response": "b", "score": NaN, "top": -Infinity, "beside": 0, "n": 1}'

    (found,) = read(written(tmp_path, "t.jsonl", row))

    assert found.facts == {"data_beside": 0, "n": 1}


@pytest.mark.parametrize("ids", ['["x"]', "[null]", "[1.5]", "[NaN]", "[-1]"])
def test_ids_that_are_none_are_named(tmp_path: Path, ids: str) -> None:
    row = f'{{"prompt": "a", "response": "b", "prompt_token_ids": {ids}}}'

    with pytest.raises(UsageError, match="row 1 prompt_token_ids holds more than token ids"):
        read(written(tmp_path, "t.jsonl", row))


@pytest.mark.parametrize(
    ("row", "turns", "response"),
    [
        # OpenAI: parts, tools, a developer, no content
        (
            {
                "messages": [
                    {"role": "developer", "content": "s"},
                    {"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]},
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
                    },
                    {"role": "tool", "content": "4"},
                    {"role": "user", "content": "c"},
                    {"role": "assistant", "content": "d"},
                ]
            },
            [
                Turn("system", "s"),
                Turn("user", "a\nb"),
                Turn("assistant", '{"name": "f", "arguments": "{}"}'),
                Turn("user", "4\n\nc"),
            ],
            "d",
        ),
        # ShareGPT
        (
            {
                "system": "s",
                "conversations": [
                    {"from": "human", "value": "a"},
                    {"from": "gpt", "value": "b"},
                ],
            },
            [Turn("system", "s"), Turn("user", "a")],
            "b",
        ),
        # TRL
        (
            {
                "prompt": [{"role": "user", "content": "a"}],
                "completion": [{"role": "assistant", "content": "b"}],
            },
            [Turn("user", "a")],
            "b",
        ),
        (
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            [Turn("user", "a")],
            "b",
        ),
        # Alpaca, with an input and without
        (
            {"instruction": "a", "input": "b", "output": "c", "text": "all"},
            [Turn("user", "a\n\nb")],
            "c",
        ),
        ({"instruction": "a", "input": "", "output": "c"}, [Turn("user", "a")], "c"),
        (
            {"system_prompt": "s", "prompt": "a", "response": "b"},
            [Turn("system", "s"), Turn("user", "a")],
            "b",
        ),
        ({"input": "a", "output": "b"}, [Turn("user", "a")], "b"),
        # of a table's cell
        ({"messages": '[{"role": "user", "content": "a"}]'}, [Turn("user", "a")], None),
    ],
)
def test_a_row_has_one_of_many_shapes(
    row: object, turns: list[Turn], response: str | None, tmp_path: Path
) -> None:
    (found,) = read(written(tmp_path, "p.jsonl", json.dumps(row)))

    assert (list(found.turns), found.response) == (turns, response)
    assert "system_prompt" not in found.facts


@pytest.mark.parametrize("wrap", [{"data": ...}, {"rows": ...}, {"version": 1, "examples": ...}])
def test_an_object_around_the_rows_is_taken_off(wrap: dict[str, object], tmp_path: Path) -> None:
    rows = [{"prompt": "a"}, {"row_idx": 1, "row": {"prompt": "b"}}]
    body = {name: rows if value is ... else value for name, value in wrap.items()}

    found = read(written(tmp_path, "p.json", json.dumps(body)))

    assert [one.shown for one in found] == ["a", "b"]


def test_a_row_that_cannot_be_read_costs_itself_only(tmp_path: Path) -> None:
    lines = [
        '{"prompt": "a", "response": "b"}',
        "{not json",
        '{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}',
        '{"x": 1}',
        '{"prompt": "c", "response": "d"}',
    ]

    found = read_transcripts(written(tmp_path, "t.jsonl", "\n".join(lines)))

    assert [one.response for one in found.read] == ["b", "d"]
    rows = [one.row.rpartition(" ")[2] for one in found.unread]
    assert rows == ["2", "3", "4"]
    assert "image_url" in found.unread[1].why


def test_a_row_of_a_table_with_a_comma_too_many_is_not_cut(tmp_path: Path) -> None:
    found = read_transcripts(written(tmp_path, "t.csv", "prompt,response\na,b\nc,d, and more\n"))

    assert [one.response for one in found.read] == ["b"]
    assert [one.row for one in found.unread] == [f"{tmp_path / 't.csv'} row 2"]


def test_a_long_field_of_a_table_is_read_whole(tmp_path: Path) -> None:
    long = "x" * 200_000

    (found,) = read(written(tmp_path, "t.csv", f"prompt,response\na,{long}\n"))

    assert found.response == long


@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
@pytest.mark.parametrize(
    "text",
    ["9" * 5_000_000, '{"prompt": "a", "n": ' + "9" * 5_000 + "}", "[" * 100 + "]" * 100],
    ids=["digits", "digits inside", "nested"],
)
def test_what_is_beyond_the_bounds_is_told(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not json: it (holds a number|is nested)"):
        read_transcripts(written(tmp_path, name, text))


def test_a_pipe_a_device_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "d.jsonl").mkdir()

    for name in ("p", "zero"):
        with pytest.raises(UsageError, match="is a pipe or a device"):
            read_transcripts(tmp_path / f"{name}.jsonl")
    with pytest.raises(UsageError, match="is a folder"):
        read_transcripts(tmp_path / "d.jsonl")


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path,
) -> None:
    # a sparse file: as large as it says, and empty
    with (tmp_path / "p.txt").open("wb") as file:
        file.truncate(reading.MOST_BYTES + 1)

    with pytest.raises(UsageError, match="cut it into several"):
        read_transcripts(tmp_path / "p.txt")


def test_a_table_that_unpacks_to_more_than_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pq.ParquetWriter(path, pa.schema([("prompt", pa.null())])) as writer:
        for _ in range(11):
            writer.write_table(pa.table({"prompt": pa.nulls(reading.MOST_ROWS // 10)}))

    assert path.stat().st_size < 2**20
    with pytest.raises(UsageError, match="cut it into several"):
        read_transcripts(path)


@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
def test_a_file_of_brackets_is_no_fault_of_the_program(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not json"):
        read(written(tmp_path, name, "[" * 100_000))
