"""Protects the order of settings: flags, environment, .env, orchestrate.toml; and its mistakes."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest
from click.testing import CliRunner

from cli.commands.plan import plan
from cli.doctor.services import check_judge
from cli.main import orchestrate
from cli.options.run import asked_run
from domain.errors import StoreError, UsageError
from domain.plan.spec import spec_settings
from orchestrator.runs import run_store
from tests.fleet import run_command

SIZE = ["--questions", "2", "--instructions", "1", "--json"]


def planned(cwd: Path, *flags: str, **environment: str) -> int:
    """The responses that `plan` counts for a trait: 4 for every rollout, with nothing tested."""
    ended = run_command("plan", "--traits", "evil", *SIZE, *flags, cwd=cwd, environment=environment)
    assert ended.returncode == 0, ended.stderr
    return int(json.loads(ended.stdout)["traits"][0]["n_samples"])


def refusal(*arguments: str) -> str:
    """What the command, in this process, is refused with."""
    ended = CliRunner().invoke(orchestrate, arguments)
    assert isinstance(ended.exception, UsageError | SystemExit)
    assert ended.exit_code != 0
    return f"{ended.output} {ended.exception}"


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


def test_plan_goes_by_the_table_of_extract_and_its_own_comes_first(tmp_path: Path) -> None:
    shared = "evaluation = 0\ncausal = 0\n"
    extract = "[extract]\nrollouts = 6\ndetach = true\n"

    (tmp_path / "orchestrate.toml").write_text(f"{shared}rollouts = 7\n{extract}")
    by_extract = planned(tmp_path)
    by_environment = planned(tmp_path, ORCHESTRATE_ROLLOUTS="3")
    (tmp_path / "orchestrate.toml").write_text(f"{shared}{extract}[plan]\nrollouts = 5\n")
    by_plan = planned(tmp_path)

    assert [by_extract, by_environment, by_plan] == [24, 12, 20]


def test_the_file_of_the_first_page_is_planned_as_extract_would_run_it(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "first-run.md").read_text()
    (tmp_path / "orchestrate.toml").write_text(page.split("```toml\n")[1].split("```")[0])

    # a fleet's, so nobody asks here for the model and the judge's key
    fleet = {"ORCHESTRATE_BROKER_URL": "redis://127.0.0.1:9/0"}
    planned = run_command("plan", "--traits", "evil", cwd=tmp_path, environment=fleet)
    dry = run_command("extract", "--traits", "evil", "--dry-run", cwd=tmp_path, environment=fleet)

    assert planned.returncode == 0, planned.stderr
    assert planned.stdout == dry.stdout
    assert "gpt-6-luna" in planned.stdout
    assert "costs nothing" not in planned.stdout


def test_doctor_asks_for_the_model_and_place_of_extract(tmp_path: Path) -> None:
    (tmp_path / "orchestrate.toml").write_text(
        f"[extract]\ntraits = 'evil'\nmodel = '{tmp_path}/none'\nruns-dir = '{tmp_path}/away/runs'"
    )

    ended = run_command("doctor", cwd=tmp_path)

    assert f"{tmp_path}/none" in ended.stdout
    assert f"no folder {tmp_path}/away/runs" in ended.stdout


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
        ("[extract]\nrollout = 1", "`orchestrate extract` has no setting 'rollout'; did you mean"),
        ("[extract]\nrollouts = 'many'", "'many' is not a valid integer"),
        ("[plan]\nrollouts = 'many'", "'many' is not a valid integer"),
        ("[plan]\nrollouts = 2.5", "'2.5' is not a valid integer"),
        ("[plan]\nrollouts = [[1]]", "rollouts holds a list in a list"),
        ("[plan.rollouts]\nat = 1", "[plan.rollouts] is no command"),
        ("run-dir = 'r'", "no command has a setting 'run-dir'; did you mean 'runs-dir'?"),
        ("plan = 5", "plan is a command: write its settings in a table"),
        ("worker = 'x'", "worker is a command: write its settings in a table"),
        ("[[worker]]\ndevice = 'cpu'", "worker is a command: write its settings in a table"),
        ("runs-dir = 'a'\nruns_dir = 'b'", "runs-dir and runs_dir are one setting"),
    ],
)
def test_a_mistake_in_the_config_file_is_answered_with_what_to_do(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "orchestrate.toml").write_text(text)
    monkeypatch.chdir(tmp_path)

    assert says in refusal("plan", "--traits", "evil")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[worker.gpux]\ndevice = 'cpu'", "[worker.gpux] is no command; did you mean 'gpu'?"),
        ("[worker]\nnonsense = 1", "`orchestrate worker` has no setting 'nonsense'"),
        ("[worker]\ngpu = 1", "gpu is a command: write its settings in a table"),
        ("[worker.gpu]\nconcurrency = 1", "`orchestrate worker gpu` has no setting 'concurrency'"),
    ],
)
def test_a_mistake_in_a_group_s_table_is_answered_for_each_command_in_it(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "orchestrate.toml").write_text(text)
    monkeypatch.chdir(tmp_path)

    assert says in refusal("worker", "list")


def test_a_setting_of_another_command_may_stand_above_the_tables(tmp_path: Path) -> None:
    (tmp_path / "orchestrate.toml").write_text(
        "evaluation = 0\ncausal = 0\nconcurrency = 8\npersist = 'x'\n[plan]\nrollouts = 5\n"
    )

    assert planned(tmp_path) == 20


def test_lists_and_underscores_are_read_as_an_option_takes_them(tmp_path: Path) -> None:
    (tmp_path / "orchestrate.toml").write_text(
        "traits = ['refusal', 'evil']\n[judge_server]\nport = 0\n[plan]\njudge_model = 'j'\n"
    )

    ended = run_command("plan", *SIZE, cwd=tmp_path, environment={"OPENAI_API_KEY": "key"})

    assert ended.returncode == 0, ended.stderr
    plan = json.loads(ended.stdout)
    assert [one["trait"] for one in plan["traits"]] == ["refusal", "evil"]
    assert plan["judge"]["model"] == "j"


def test_a_list_gives_an_option_that_may_be_repeated_each_of_its_texts(tmp_path: Path) -> None:
    (tmp_path / "orchestrate.toml").write_text("[steer]\nadd = ['evil=1', 'calm=x']\n")

    ended = run_command("steer", "demo", "--prompt", "Hi", cwd=tmp_path)

    assert ended.returncode == 2
    assert "calm=x" in ended.stderr


def test_an_env_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("ORCHESTRATE_ROLLOUTS=4\n".encode("utf-16"))

    ended = run_command("plan", cwd=tmp_path)

    assert ended.returncode == 2
    assert ".env is not text in UTF-8" in ended.stderr


def test_help_does_not_show_the_password_of_the_broker(tmp_path: Path) -> None:
    (tmp_path / "orchestrate.toml").write_text(
        "broker-url = 'redis://:in-the-file@host/0'\nruns-dir = 'shown'\n"
    )
    environment = {"ORCHESTRATE_BROKER_URL": "redis://:in-the-environment@host/0"}

    by_file = run_command("extract", "--help", cwd=tmp_path)
    by_environment = run_command("extract", "--help", cwd=tmp_path, environment=environment)

    assert "shown" in by_file.stdout
    assert "in-the-" not in by_file.stdout + by_environment.stdout


def test_a_config_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    ended = run_command(
        "plan", cwd=tmp_path, environment={"ORCHESTRATE_CONFIG": str(tmp_path / "none.toml")}
    )

    assert ended.returncode == 2
    assert "none.toml, which is not a file" in ended.stderr


def test_each_setting_of_the_specification_reaches_its_field_from_an_option() -> None:
    texts = {int: "3", float: "0.5", bool: True, str: "x"}
    arguments, wanted = ["--traits", "evil"], {}
    for one in spec_settings():
        kinds = get_args(one.field.annotation) or (one.field.annotation,)
        text = texts.get(kinds[0], kinds[-1])
        # what is only read has no questions, and this trait has
        fitting = {"methods": "ica,probe", "scenarios": "turn", "judge-url": "http://x/v1"}
        text = fitting.get(one.name, text)
        arguments += [f"--{one.name}"] if text is True else [f"--{one.name}", str(text)]
        wanted[one.path] = text

    spec = asked_run(plan.make_context("plan", arguments).params).spec

    for path, text in wanted.items():
        value = functools.reduce(getattr, path, spec)
        shown = ",".join(value) if isinstance(value, tuple) else value
        assert str(shown) == str(text), path


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command, by its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        one = group.get_command(context, name)
        if isinstance(one, click.Group):
            yield from commands(one, *path, name)
        elif one is not None:
            yield " ".join((*path, name)), one


OF_RUNS = sorted(
    words
    for words, one in commands(orchestrate)
    if any(option.name == "runs_dir" for option in one.params)
)
# what a command wants beside a run's name, or in its place
WANTED = {
    "compare": ["demo", "other"],
    "export": ["demo", "--format", "pt"],
    "extract": [],
    "monitor": ["demo", "--prompt", "Hello"],
    "plan": [],
    "screen": ["demo", "prompts.jsonl"],
    "status": [],
    "steer": ["demo", "--prompt", "Hello", "--add", "evil=1"],
    "traits pilot": ["evil"],
    "view": ["--live", "demo"],
}


@pytest.mark.parametrize("command", [words for words in OF_RUNS if words != "doctor"])
def test_a_file_in_the_place_of_the_runs_is_called_one_by_every_command(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").touch()
    Path("prompts.jsonl").write_text('{"prompt": "Hello", "response": "Hello."}\n')

    said = refusal(*command.split(), *WANTED.get(command, ["demo"]))

    assert "is a file: give the folder" in said


def test_a_value_that_is_refused_is_told_with_the_file_it_stands_in(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("threshold = 200\n")
    named = {"ORCHESTRATE_CONFIG": "mine.toml"}

    of_file = run_command("plan", "--traits", "evil", cwd=tmp_path, environment=named)
    of_flag = run_command(
        "plan", "--traits", "evil", "--threshold", "300", cwd=tmp_path, environment=named
    )

    assert (of_file.returncode, of_flag.returncode) == (2, 2)
    assert "mine.toml" in of_file.stderr
    assert "mine.toml" not in of_flag.stderr


def test_a_run_may_end_in_a_slash_and_its_path_is_answered_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/demo", "runs/a/deep"):
        run_store(".", name).write("run.json", b"{}")

    assert run_store("runs", "demo/").exists("run.json")
    assert run_store("runs", "a/deep").exists("run.json")
    with pytest.raises(UsageError, match="its name, demo, and the folder by --runs-dir runs"):
        run_store("runs", "runs/demo/")


def test_a_file_above_the_runs_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match="is a file"):
        run_store(str(tmp_path / "file" / "below"), "demo").write("run.json", b"{}")


@pytest.mark.parametrize("setting", ["rollouts", "evaluation", "causal", "doses", "contexts"])
def test_a_count_beyond_all_measure_is_refused_and_not_counted_through(setting: str) -> None:
    """The plan of a billion would be listed sample by sample."""
    said = refusal("plan", "--traits", "evil", f"--{setting}", str(10**9))

    assert setting in said


ASKS_A_JUDGE = {
    "doctor": (),
    "extract": (),
    "judge-server": ("--check", "--model", "x"),
    "plan": (),
    "rejudge": ("demo",),
    "traits draft": ("answers with dry jokes",),
    "traits pilot": ("evil",),
}


def test_each_command_that_takes_a_judges_url_is_known() -> None:
    taking = {
        words
        for words, one in commands(orchestrate)
        if {option.name for option in one.params} & {"judge_url", "url"}
    }

    assert taking == set(ASKS_A_JUDGE)


@pytest.mark.parametrize("command", ASKS_A_JUDGE)
@pytest.mark.parametrize("url", ["localhost:8011/v1", "notaurl", "ftp://h/v1", "http:///v1"])
def test_a_judges_url_that_is_none_is_refused_when_it_is_read(
    command: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flag = "--url" if command == "judge-server" else "--judge-url"

    ended = CliRunner().invoke(orchestrate, [*command.split(), *ASKS_A_JUDGE[command], flag, url])

    assert ended.exit_code == UsageError.exit_code
    assert "begin with http:// or https://" in ended.output
    assert list(tmp_path.iterdir()) == []


def test_the_judges_url_of_openais_variable_is_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8011/v1")
    named = ("--judge-model", "x")

    for words in (("plan",), ("extract",), ("traits", "pilot", "evil"), ("traits", "draft", "dry")):
        assert "OPENAI_BASE_URL must begin with http://" in refusal(*words, *named)
    with pytest.raises(UsageError, match="OPENAI_BASE_URL must begin with http://"):
        list(check_judge(None, "x", demo=False))
    assert list(tmp_path.iterdir()) == []
