"""Protects the order of settings: flags, environment, .env, orchestrate.toml; and its mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fleet import run_command

SIZE = ["--questions", "2", "--instructions", "1", "--json"]


def planned(cwd: Path, *flags: str, **environment: str) -> int:
    """The responses that `plan` counts for a trait: 4 for every rollout, with nothing tested."""
    ended = run_command("plan", "--traits", "evil", *SIZE, *flags, cwd=cwd, environment=environment)
    assert ended.returncode == 0, ended.stderr
    return int(json.loads(ended.stdout)["traits"][0]["n_samples"])


def test_flags_come_before_the_environment_then_env_file_then_config_file(tmp_path: Path) -> None:
    (tmp_path / "orchestrate.toml").write_text(
        "evaluation = 0\ncausal = 0\nrollouts = 7\n[plan]\nrollouts = 5\n"
    )

    by_file = planned(tmp_path)
    (tmp_path / ".env").write_text("ORCHESTRATE_ROLLOUTS=4\n")
    by_env_file = planned(tmp_path)
    by_environment = planned(tmp_path, ORCHESTRATE_ROLLOUTS="3")
    by_flag = planned(tmp_path, "--rollouts", "2", ORCHESTRATE_ROLLOUTS="3")

    assert [by_file, by_env_file, by_environment, by_flag] == [20, 16, 12, 8]


def test_a_group_s_table_counts_for_the_commands_in_it_and_theirs_for_one(tmp_path: Path) -> None:
    (tmp_path / "orchestrate.toml").write_text(
        '[worker]\nbroker-url = "redis://127.0.0.1:1/0"\n[worker.list]\njson = true\n'
    )

    ended = run_command("worker", "list", cwd=tmp_path)

    assert ended.returncode == 5
    assert "127.0.0.1:1" in ended.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rollouts = ", "not valid TOML"),
        ("[extrakt]\nrollouts = 1", "[extrakt] is no command; did you mean 'extract'?"),
        ("[plan]\nrollout = 1", "no setting 'rollout'; did you mean 'rollouts'?"),
        ("[plan]\nrollouts = 'many'", "'many' is not a valid integer"),
    ],
)
def test_a_mistake_in_the_config_file_is_answered_with_what_to_do(
    text: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "orchestrate.toml").write_text(text)

    ended = run_command("plan", "--traits", "evil", cwd=tmp_path)

    assert ended.returncode == 2
    assert says in ended.stderr


def test_a_config_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    ended = run_command(
        "plan", cwd=tmp_path, environment={"ORCHESTRATE_CONFIG": str(tmp_path / "none.toml")}
    )

    assert ended.returncode == 2
    assert "none.toml, which is not a file" in ended.stderr
