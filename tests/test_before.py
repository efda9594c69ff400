"""Protects what is known before anything is spent: refused at once, with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.record.artifacts import set_artifact_aside
from tests.fleet import run_command
from tests.stored_run import stored_run
from tests.tiny_models import TEMPLATE, save_tiny_model

OPENS = TEMPLATE.replace("<assistant>", "<assistant><think>\n")
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


@pytest.mark.parametrize("template", [TEMPLATE, CAN_CLOSE, OPENS])
def test_a_model_is_planned_whatever_it_thinks(template: str, tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model", "llama", template=template)

    ended = run_command(
        *("plan", "--traits", "evil", *LOCAL, "--model", "model"),
        cwd=tmp_path,
        environment=OFFLINE,
    )

    assert ended.returncode == 0, ended.stderr


def test_a_fleet_has_its_own_models_and_keys(tmp_path: Path) -> None:
    ended = run_command(
        *("plan", "--traits", "evil", *HOSTED, "--model", "nobody/has-this"),
        *("--broker-url", "redis://127.0.0.1:9/0"),
        cwd=tmp_path,
        environment=OFFLINE,
    )

    assert ended.returncode == 0, ended.stderr
