"""`orchestrate monitor` and `screen`: the score of each token itself, on a scale that is kept."""

from __future__ import annotations

import csv
import json
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from cli.main import orchestrate
from cli.pages.build import build_page
from cli.pages.server import PageServer
from cli.using.monitored_output import open_output_file, open_output_files
from domain.errors import OrchestrateError, UsageError
from tests.chromium import chromium_or_skip, running_chromium
from tests.planted_vectors import PlantedRun, planted_run
from traitlens.capture.hooks import ActivationCapture, HookManager
from traitlens.compute import projection
from traitlens.stats.separation import auroc
from workers.models.model import load_model
from workers.monitor.trajectory import TraitScale

torch.set_num_threads(1)
MARK = ("--system", "Write with ^ please.")
PROMPTS = ("How are you?", "What is rain?", "Tell me 3 things.")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PlantedRun:
    return planted_run(tmp_path_factory.mktemp("planted"))


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(orchestrate, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def prompts_file(folder: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def marked_prompts(made: PlantedRun) -> list[dict[str, str]]:
    """Each question under each instruction, for and against capitals."""
    return [
        {"system": text, "prompt": question, "side": side}
        for pair in made.planted.instructions
        for side, text in zip(("positive", "negative"), pair, strict=True)
        for question in made.planted.questions
    ]


def response_z(records: list[dict[str, Any]], side: str, trait: str) -> np.ndarray:
    found = [r["summary"][trait]["z"] for r in records if r["metadata"]["side"] == side]
    # longer than enough neutral responses are: no scale
    return np.array([z for z in found if z is not None])[:, None]


def test_every_score_in_the_file_is_that_of_its_own_token_in_a_pass_of_its_own(
    made: PlantedRun, tmp_path: Path
) -> None:
    out = tmp_path / "scores.json"
    prompts = [argument for text in PROMPTS for argument in ("--prompt", text)]

    run("monitor", *made.arguments, *prompts, *MARK, "--output", str(out), "--no-baseline")

    model = load_model(made.planted.folder, device="cpu")
    direction = torch.from_numpy(made.planted.direction)
    for record in json.loads(out.read_text()):
        turns = (("system", MARK[1]), ("user", record["prompt"]))
        chat = [{"role": role, "content": text} for role, text in turns]
        head = model.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = model.tokenizer.encode(head + record["response"], add_special_tokens=False)
        capture = ActivationCapture()
        with HookManager(model.model) as hooks, torch.inference_mode():
            hooks.add_forward_hook("model.layers.1", capture.make_hook("h"))
            model.model(torch.tensor([ids]))
        expected = projection(capture.get("h")[0], direction)[len(ids) - len(record["tokens"]) :]
        assert (expected > 1).all()
        assert "".join(record["tokens"]) == record["response"]
        assert record["trait_scores"]["capitals"] == pytest.approx(expected.tolist(), abs=1e-5)


def test_positive_and_negative_prompts_separate_by_z_on_the_trait_and_not_on_the_other(
    made: PlantedRun, tmp_path: Path
) -> None:
    file = prompts_file(tmp_path, marked_prompts(made))

    shown = run("monitor", *made.arguments, "--prompts", file, "--json")

    records = json.loads(shown.stdout)
    positive, negative = (response_z(records, s, "capitals") for s in ("positive", "negative"))
    assert auroc(positive, negative)[0] > 0.9
    sides = [response_z(records, s, "noise") for s in ("positive", "negative")]
    assert 0.1 < auroc(*sides)[0] < 0.9
    flagged = [(r["summary"]["capitals"]["flagged"], r["metadata"]["side"]) for r in records]
    judged = [(is_flagged, side) for is_flagged, side in flagged if is_flagged is not None]
    assert len(judged) >= 8
    assert all(is_flagged == (side == "positive") for is_flagged, side in judged)


def test_the_baseline_is_made_once_and_holds_for_another_layer(made: PlantedRun) -> None:
    store = made.run.store
    run("monitor", *made.arguments, "--prompt", "Why?")
    before = {key: store.read(key) for key in store.list("neutral")}

    again = run("monitor", *made.arguments, "--prompt", "Why?")
    other = run("monitor", *made.arguments, "--prompt", "Why?", "--layer", "block:2")

    assert "Making the baseline" not in again.stderr + other.stderr
    after = {key: store.read(key) for key in store.list("neutral")}
    assert {key: after[key] for key in before} == before
    # projections, and the rates that held-out responses reach
    assert len(after) == len(before) + 2


def test_tokens_are_written_as_they_come_and_end_as_the_json_does(
    made: PlantedRun, tmp_path: Path
) -> None:
    live, whole, table = (tmp_path / name for name in ("live.jsonl", "all.json", "tokens.parquet"))
    outputs = [a for path in (live, whole, table) for a in ("--output", str(path))]
    prompts = [argument for text in PROMPTS for argument in ("--prompt", text)]

    run("monitor", *made.arguments, *prompts, *MARK, *outputs)

    events = [json.loads(line) for line in live.read_text().splitlines()]
    records = json.loads(whole.read_text())
    order = [e["id"] for e in events if e["event"] == "token"]
    assert order != sorted(order)  # mixed, as a batch makes them
    for i, record in enumerate(records):
        tokens = [e for e in events if e["event"] == "token" and e["id"] == i]
        assert [e["token"] for e in tokens] == record["tokens"]
        for name in ("trait_scores", "trait_zscores"):
            scores = [e[name]["capitals"] for e in tokens]
            assert scores == pytest.approx(record[name]["capitals"], rel=1e-5)
    assert events[-1] == {"event": "end"}
    rows = pd.read_parquet(table)
    assert len(rows) == 2 * sum(len(record["tokens"]) for record in records)
    assert (rows["cosine"].abs() <= 1 + 1e-5).all()


def test_alternatives_stand_at_their_tokens_and_hold_what_was_said(
    made: PlantedRun, tmp_path: Path
) -> None:
    files = [tmp_path / "scores.json", tmp_path / "live.jsonl"]
    outputs = [word for file in files for word in ("--output", str(file))]

    prompts = [argument for text in PROMPTS for argument in ("--prompt", text)]

    run(
        "monitor",
        *made.arguments,
        *prompts,
        *MARK,
        "--alternatives",
        "50",
        "--no-baseline",
        *outputs,
    )

    one = max(json.loads(files[0].read_text()), key=lambda record: len(record["tokens"]))
    places = one["alternatives"]
    assert len(places) == len(one["tokens"]) and {len(place) for place in places} == {50}
    said = [dict(place).get(token) for place, token in zip(places, one["tokens"], strict=True)]
    assert places and any(said)
    for place in places:
        shares = [share for _, share in place]
        assert shares == sorted(shares, reverse=True) and sum(shares) <= 1.0001
    events = map(json.loads, files[1].read_text().splitlines())
    assert places in [e["alternatives"] for e in events if e["event"] == "done"]


def test_screening_a_table_gives_the_scores_that_monitoring_gave(
    made: PlantedRun, tmp_path: Path
) -> None:
    file = prompts_file(tmp_path, marked_prompts(made)[:6])
    monitored, screened = tmp_path / "monitored.csv", tmp_path / "screened.csv"
    run("monitor", *made.arguments, "--prompts", file, "--output", str(monitored))
    with monitored.open() as lines:
        rows = list(csv.DictReader(lines))
    chats = [
        {"messages": [*chat, {"role": "assistant", "content": row["response"]}]}
        for row, chat in zip(rows, chats_of(marked_prompts(made)[:6]), strict=True)
    ]
    transcripts = tmp_path / "chats.jsonl"
    transcripts.write_text("".join(json.dumps(chat) + "\n" for chat in chats))

    run("screen", *made.arguments, str(transcripts), "--output", str(screened))

    ours, theirs = pd.read_csv(monitored), pd.read_csv(screened)
    assert theirs["response"].tolist() == ours["response"].tolist()
    for column in ("capitals_mean", "capitals_z", "noise_mean_cosine"):
        np.testing.assert_allclose(theirs[column], ours[column], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ids", [[5, 6, 7], [10**6]])
@pytest.mark.parametrize("command", ["screen", "monitor"])
def test_token_ids_of_another_tokenizer_are_not_read_as_the_models_own(
    made: PlantedRun, tmp_path: Path, command: str, ids: list[int]
) -> None:
    row = {"question": "Hi", "prompt": "Hi, you", "response": "Hello."}
    foreign = row | {"prompt_token_ids": ids, "response_token_ids": ids}
    file, out = prompts_file(tmp_path, [foreign, row]), tmp_path / "scores.json"
    option = ("--prompts",) if command == "monitor" else ()

    run(command, *made.arguments, *option, file, "--output", str(out))

    read, texts = json.loads(out.read_text())
    assert read["prompt_scores"] == texts["prompt_scores"]
    assert command == "monitor" or read["trait_scores"] == texts["trait_scores"]


def test_scores_that_a_table_brings_are_not_taken_for_measured_ones(
    made: PlantedRun, tmp_path: Path
) -> None:
    before = {"capitals_z": 9.5, "capitals_flagged": True, "any_trait_flagged": True}
    file, out = prompts_file(tmp_path, [{"prompt": "Hi", "by": "us"} | before]), tmp_path / "s.csv"

    run("monitor", *made.arguments, "--prompts", file, "--output", str(out), "--no-baseline")

    (row,) = csv.DictReader(out.read_text().splitlines())
    assert row["by"] == "us" and not before.keys() & row.keys()


def test_odd_columns_of_a_table_do_not_cost_the_screening(made: PlantedRun, tmp_path: Path) -> None:
    row = {"prompt": "Hi", "response": "Hello\u2028there.", "beside": 7, "coefficient": 2.0}
    rows = [row | {"score": score, "steering": "x"} for score in (float("nan"), 1.0)]
    transcripts, out = tmp_path / "odd.jsonl", tmp_path / "scores.json"
    transcripts.write_text(
        "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8"
    )

    shown = run(
        "screen", *made.arguments, str(transcripts), "--output", str(out), "--by", "steering"
    )

    first, second = json.loads(out.read_text())
    assert "score" not in first["metadata"] and second["metadata"]["score"] == 1.0
    assert first["metadata"]["data_beside"] == 7 and first["response"] == row["response"]
    assert "by data_steering" in shown.output and "x (2)" in shown.output


def test_rows_that_the_model_cannot_be_given_are_counted_and_the_others_screened(
    made: PlantedRun, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "Hi", "response": "Hello."},
        {"prompt": "Hi", "response": ""},
        {"prompt": "Hi"},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        {"prompt": "word " * 2000, "response": "Hello."},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes."}]},
    ]
    file, out = prompts_file(tmp_path, rows), tmp_path / "scores.json"

    shown = run("screen", *made.arguments, file, "--output", str(out))

    assert [one["response"] for one in json.loads(out.read_text())] == ["Hello.", "Yes."]
    assert "Left out 4 of 6 rows" in shown.stderr
    for number, why in ((2, "empty response"), (3, "no response"), (4, "image_url"), (5, "tokens")):
        assert re.search(rf"row {number} .*{why}", shown.stderr)


def test_a_system_prompt_of_a_row_is_in_force_and_the_option_goes_before_it(
    made: PlantedRun, tmp_path: Path
) -> None:
    positive, _ = made.planted.instructions[0]
    file = prompts_file(tmp_path, [{"prompt": PROMPTS[0], "system_prompt": positive}])
    own, other = tmp_path / "own.json", tmp_path / "other.json"

    run("monitor", *made.arguments, "--prompts", file, "--output", str(own), "--no-baseline")
    asked = ("--prompts", file, "--system", "Be brief.")
    run("monitor", *made.arguments, *asked, "--output", str(other), "--no-baseline")

    (under,), (instead,) = json.loads(own.read_text()), json.loads(other.read_text())
    direct = run("monitor", *made.arguments, "--prompt", PROMPTS[0], "--system", positive, "--json")
    assert under["response"] == json.loads(direct.stdout)[0]["response"]
    assert "system_prompt" not in under["metadata"]
    assert instead["response"] != under["response"]


def test_an_output_that_cannot_be_written_does_not_cost_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "taken away"
    folder.mkdir()
    lost, kept = folder / "a.csv", tmp_path / "b.json"
    sinks = [open_output_file(lost), open_output_file(kept)]

    with pytest.raises(OSError, match="taken away"), open_output_files(sinks, TraitScale((), {})):
        shutil.rmtree(folder)

    assert json.loads(kept.read_text()) == []


def chats_of(rows: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    return [
        [
            {"role": "system", "content": row["system"]},
            {"role": "user", "content": row["prompt"]},
        ]
        for row in rows
    ]


def test_screening_groups_by_a_column_and_reads_the_baselines_own_table(made: PlantedRun) -> None:
    run("monitor", *made.arguments, "--prompt", "Why?")
    neutral = Path(made.runs_dir) / made.name / "neutral" / "responses.parquet"

    shown = run("screen", *made.arguments, str(neutral), "--by", "finish", "--false-alarm", "0.1")

    flagged = next(line for line in shown.output.splitlines() if line.startswith("capitals"))
    count, total = flagged.split()[-2].split("/")
    assert int(total) > 60
    assert int(count) <= 0.1 * int(total)  # the neutral responses themselves keep to the rate
    assert "by finish" in shown.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "x", "--traits", "evil"], "has no trait 'evil': it has capitals, noise"),
        (["--prompt", "x", "--layer", "99"], "capitals: no layer '99'"),
        (["--prompt", "x", "--method", "probe"], "capitals has no probe vector"),
        (["--prompt", "x", "--output", "x.pdf"], "end it in .json"),
        ([], "give --prompt TEXT or --prompts FILE"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_generated(
    made: PlantedRun, arguments: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        CliRunner().invoke(
            orchestrate, ["monitor", *made.arguments, *arguments], catch_exceptions=False
        )


def test_another_model_is_refused_unless_it_is_named(made: PlantedRun, tmp_path: Path) -> None:
    other = tmp_path / "tuned"
    model = load_model(made.planted.folder, device="cpu")
    with torch.no_grad():
        model.model.lm_head.weight.mul_(1.5)
    model.model.save_pretrained(other)
    model.tokenizer.save_pretrained(other)

    asked = ("--prompt", "Why?", *MARK, "--max-new-tokens", "3")
    shown = run("monitor", *made.arguments, *asked, "--model", str(other), "--json")

    assert json.loads(shown.stdout)[0]["summary"]["capitals"]["flagged"]
    weights = Path(made.planted.folder) / "model.safetensors"
    original = weights.read_bytes()
    weights.write_bytes((other / "model.safetensors").read_bytes())
    try:
        with pytest.raises(OrchestrateError, match="named with --model"):
            run("monitor", *made.arguments, "--prompt", "Why?")
    finally:
        weights.write_bytes(original)


def test_the_page_follows_a_real_run_and_sets_steered_beside_unsteered(
    made: PlantedRun, tmp_path: Path
) -> None:
    live = tmp_path / "live.jsonl"
    asked = ("--prompt", "Why?", *MARK, "--add", "capitals=-1", "--output", str(live))
    run("steer", *made.arguments, *asked)
    n_tokens = sum(json.loads(line)["event"] == "token" for line in live.read_text().splitlines())

    with (
        PageServer(lambda: build_page(live="events"), followed=live) as server,
        running_chromium(chromium_or_skip(), tmp_path / "profile") as tab,
    ):
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        tab.open(server.url)
        tab.wait("!document.querySelector('#content').hidden")
        tab.wait(f"document.body.innerText.includes('{n_tokens} tokens')")
        shown = tab.evaluate("document.body.innerText")
        server.shutdown()

    assert "finished" in shown
    assert "Steered" in shown
    assert tab.errors == []
