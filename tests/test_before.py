"""Protects what is known before anything is spent: refused at once, with the way out."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fleet import run_command
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
    started = time.perf_counter()

    ended = run_command(*command, "--traits", "evil", *settings, cwd=tmp_path, environment=OFFLINE)

    assert ended.returncode not in (0, 3)
    assert way_out in ended.stderr
    assert not (tmp_path / "runs").exists()
    # 3 on an idle machine
    assert time.perf_counter() - started < 30


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
