"""Protects what is known before anything is spent: refused at once, with the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from starlette.responses import JSONResponse, Response

from cli.commands.plan import plan
from cli.options.run import asked_run
from domain.errors import BrokerError, UsageError
from domain.plan.spec import Measure
from storage.record.artifacts import set_artifact_aside
from tests.fleet import run_command
from tests.http_server import served
from tests.stored_run import stored_run
from tests.test_doctor_model import hub
from tests.tiny_models import TEMPLATE, save_tiny_model
from tests.trait_texts import trait_json, without, write

OPENS = TEMPLATE.replace("<assistant>", "<assistant><think>\n")
OPENS_ITSELF = TEMPLATE + "{# content.split('</think>') #}"
CAN_CLOSE = TEMPLATE.replace(
    "<assistant>{%", "<assistant>{% if enable_thinking is false %}<think></think>{% endif %}{%"
)
# no request leaves this machine
OFFLINE = {"HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": ""}
HOSTED = ("--judge-model", "gpt-6-luna")
LOCAL = (*HOSTED, "--judge-url", "http://127.0.0.1:9/v1")


@pytest.mark.parametrize("command", [("plan",), ("extract",)], ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("settings", "way_out"),
    [
        (HOSTED, "ORCHESTRATE_JUDGE_API_KEY"),
        ((*LOCAL, "--model", "nobody/has-this"), "--model PATH"),
        ((*LOCAL, "--model", "nowhere.gguf"), "nowhere.gguf"),
        ((*LOCAL, "--model", "base"), "base model"),
    ],
)
def test_what_cannot_start_is_refused_before_anything_is_recorded(
    command: tuple[str, ...], settings: tuple[str, ...], way_out: str, tmp_path: Path
) -> None:
    save_tiny_model(tmp_path / "base", "llama", template=None)

    ended = run_command(*command, "--traits", "evil", *settings, cwd=tmp_path, environment=OFFLINE)

    assert ended.returncode not in (0, 3)
    assert way_out in ended.stderr
    assert not (tmp_path / "runs").exists()


def test_what_is_gone_on_with_needs_the_key_while_there_is_something_to_ask(
    tmp_path: Path,
) -> None:
    """Also by `resume` and `retry`, which name no judge."""
    hosted = "https://api.openai.com/v1"
    run = stored_run(tmp_path / "runs" / "r", traits="evil", judge_url=hosted)
    unscored, *_ = run.plan.part_jobs(run.spec.traits[0], "judge")
    ended = run_command("resume", "r", cwd=tmp_path, environment=OFFLINE)
    for job in (unscored, run.plan.last_job(run.spec.traits[0])):
        set_artifact_aside(run.store, job)

    refused = run_command("resume", "r", cwd=tmp_path, environment=OFFLINE, timeout_s=60)

    # a verdict, and not that nobody can be asked
    assert ended.returncode in (0, 3), ended.stderr
    assert refused.returncode == 1
    assert "ORCHESTRATE_JUDGE_API_KEY" in refused.stderr


PLANS: dict[str, tuple[str, ...]] = {
    "plan": ("plan", "--traits", "evil"),
    "extract": ("extract", "--traits", "evil"),
    "pilot": ("traits", "pilot", "evil"),
    "fleet": ("plan", "--traits", "evil", "--broker-url", "redis://127.0.0.1:9/0"),
}


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize("template", [OPENS, OPENS_ITSELF], ids=["opens", "opens itself"])
def test_of_a_model_that_has_to_think_somebody_says_what_is_measured(
    template: str, plans: str, tmp_path: Path
) -> None:
    save_tiny_model(tmp_path / "model", "llama", template=template)

    ended = run_command(
        *PLANS[plans], *LOCAL, "--model", "model", cwd=tmp_path, environment=OFFLINE
    )

    assert ended.returncode == UsageError.exit_code
    ways_out = {f"--measure {one}" for one in get_args(Measure)}
    assert all(one in ended.stderr for one in (*ways_out, "--max-thought-tokens"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("said", ["option", "variable", "file"])
def test_what_is_measured_may_be_said_anywhere(said: str, tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model", "llama", template=OPENS)
    if said == "file":
        (tmp_path / "orchestrate.toml").write_text('[extract]\nmeasure = "thought"\n')

    ended = run_command(
        *("extract", "--dry-run", "--traits", "evil", *LOCAL, "--model", "model"),
        *(("--measure", "thought") if said == "option" else ()),
        cwd=tmp_path,
        environment={
            **OFFLINE,
            **({"ORCHESTRATE_MEASURE": "thought"} if said == "variable" else {}),
        },
    )

    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("template", [TEMPLATE, CAN_CLOSE], ids=["does not think", "can close"])
def test_a_model_that_answers_at_once_needs_no_word(template: str, tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model", "llama", template=template)

    ended = run_command(
        *("plan", "--traits", "evil", *LOCAL, "--model", "model"),
        cwd=tmp_path,
        environment=OFFLINE,
    )

    assert ended.returncode == 0, ended.stderr


def test_no_word_and_the_answer_are_the_same_run() -> None:
    unsaid, said = (
        asked_run(plan.make_context("plan", ["--traits", "evil", *words]).params)
        for words in ((), ("--measure", "answer"))
    )

    assert unsaid.spec == said.spec and unsaid.store.url == said.store.url
    assert said.says_measure and not unsaid.says_measure


def test_a_recorded_run_goes_on_without_the_word(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model", "llama", template=OPENS)
    run = stored_run(tmp_path / "runs" / "r", traits="evil", model="model")
    set_artifact_aside(run.store, run.plan.last_job(run.spec.traits[0]))

    planned = run_command(
        *("plan", "--traits", "evil", *LOCAL, "--model", "model", "--run", "r"),
        cwd=tmp_path,
        environment=OFFLINE,
    )
    resumed = run_command("resume", "r", cwd=tmp_path, environment=OFFLINE)

    assert planned.returncode == 0, planned.stderr
    # a verdict
    assert resumed.returncode in (0, 3), resumed.stderr


@pytest.mark.parametrize("at", ["chat_template_jinja", "tokenizer_config"])
def test_a_template_that_only_the_hub_has_is_read_there(at: str, tmp_path: Path) -> None:
    stated = OPENS if at == "chat_template_jinja" else {"chat_template": OPENS}
    info = JSONResponse({"id": "org/model", "config": {at: stated}})
    plans = ("plan", "--traits", "evil", *LOCAL, "--model", "org/model")

    with served(hub(info, Response())) as endpoint:
        where = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hub")}
        unsaid, said = (
            run_command(*plans, *words, cwd=tmp_path, environment=where)
            for words in ((), ("--measure", "answer"))
        )

    assert unsaid.returncode == UsageError.exit_code and "--measure" in unsaid.stderr
    assert said.returncode == 0, said.stderr


def test_a_fleet_has_its_own_models_and_keys(tmp_path: Path) -> None:
    ended = run_command(
        *("plan", "--traits", "evil", *HOSTED, "--model", "nobody/has-this"),
        *("--broker-url", "redis://127.0.0.1:9/0"),
        cwd=tmp_path,
        environment=OFFLINE,
    )

    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("command", [("plan",), ("plan", "--json"), ("extract", "--dry-run")])
def test_what_is_wrong_in_a_trait_file_is_told_with_the_plan(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    data = {**without("eval_questions"), "eval_question": [], "questions": ["Why?", "why?"]}
    write(tmp_path / "humor.json", data)

    ended = run_command(*command, "--traits", "evil,humor.json", *LOCAL, cwd=tmp_path)

    told = ended.stdout
    if "--json" in command:
        told = "\n".join(json.loads(told)["remarks"])
    assert ended.returncode == 0, ended.stderr
    assert "humor.json: eval_question: is an unknown key" in told
    assert "did you mean 'eval_questions'?" in told
    assert "humor.json: questions[1]: repeats questions[0]" in told


def test_extract_begins_with_what_is_wrong_in_a_trait_file(tmp_path: Path) -> None:
    write(tmp_path / "humor.json", trait_json(eval_question=[]))
    nowhere = ("--broker-url", "redis://127.0.0.1:9/0")

    ended = run_command(
        "extract", "--traits", "humor.json", *LOCAL, *nowhere, cwd=tmp_path, environment=OFFLINE
    )

    assert "humor.json: eval_question: is an unknown key" in ended.stdout
    # a warning: the command goes on, to the broker that is not there
    assert ended.returncode == BrokerError.exit_code
