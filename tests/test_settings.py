"""Protects who keeps settings in orchestrate.toml: every command reads them, as the page says."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from cli.main import COMMANDS, orchestrate
from cli.settings import WORKER_COMMANDS, load_environment_files

CONFIG = """
runs-dir = "/shared/runs"
broker-url = "redis://broker:6379/0"

[extract]
judge-model = "gpt-6-luna"

[judge-server]
port = 9000

[worker.gpu]
device = "cuda:1"
"""


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> click.Context:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orchestrate.toml").write_text(CONFIG)
    context = click.Context(orchestrate)
    load_environment_files(context)
    return context


def settings_of(context: click.Context, *words: str) -> dict[str, object]:
    """What a command is left with when nothing stands on its command line."""
    inner, command = context, context.command
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(inner, word)
        assert found is not None
        command = found
        inner = click.Context(command, parent=inner, info_name=word)
    return {p.name or "": p.get_default(inner) for p in command.params}


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"worker", "traits"}))
def test_shared_settings_reach_every_command(context: click.Context, name: str) -> None:
    found = settings_of(context, name)

    assert found.get("runs_dir", "/shared/runs") == "/shared/runs"
    assert found.get("broker_url", "redis://broker:6379/0") == "redis://broker:6379/0"


@pytest.mark.parametrize("kind", WORKER_COMMANDS)
def test_shared_settings_reach_every_kind_of_worker(context: click.Context, kind: str) -> None:
    assert settings_of(context, "worker", kind)["broker_url"] == "redis://broker:6379/0"


def test_a_commands_own_settings_are_its_own(context: click.Context) -> None:
    assert settings_of(context, "extract")["judge_model"] == "gpt-6-luna"
    assert settings_of(context, "plan")["judge_model"] != "gpt-6-luna"
    assert settings_of(context, "judge-server")["port"] == 9000
    assert settings_of(context, "worker", "gpu")["device"] == "cuda:1"


def test_worker_commands_are_all_there_are() -> None:
    group = orchestrate.get_command(click.Context(orchestrate), "worker")

    assert isinstance(group, click.Group)
    assert sorted(group.commands) == sorted(WORKER_COMMANDS)
