"""Protects `orchestrate doctor`: what is wrong is found, and said with what to do."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cli.doctor.machine import Checked, run_checks
from cli.doctor.services import check_judge, check_storage
from domain.errors import BrokerError
from tests.doctor_lines import doctor, states
from tests.fleet import clean_environment
from tests.http_judge import error, scoring
from tests.http_server import served


def test_a_machine_with_all_it_needs_passes_and_nothing_stays_behind(tmp_path: Path) -> None:
    _, lines = doctor("--runs-dir", str(tmp_path))

    # devices are the machine's own affair
    for check in ("packages", "redis-server", "broker", "storage", "model", "judge"):
        assert lines[check]["state"] == "ok", lines[check]
    assert lines["model"]["found"].startswith("demo: ")
    assert list(tmp_path.iterdir()) == []


def test_doctor_and_its_help_load_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom cli.main import orchestrate\n"
        "try: orchestrate.main({arguments!r}, standalone_mode=False)\n"
        "except SystemExit: pass\n"
        "print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    heavy = ["torch", "transformers", "sklearn", "pandas"]
    cases = [(["doctor", "--runs-dir", str(tmp_path)], heavy)]
    cases.append((["doctor", "--help"], [*heavy, "openai", "celery", "huggingface_hub", "redis"]))

    for arguments, names in cases:
        shown = subprocess.run(
            [sys.executable, "-P", "-c", code.format(arguments=arguments, heavy=names)],
            env=clean_environment(),
            capture_output=True,
            text=True,
        )
        assert shown.stderr.splitlines()[-1] == "[]"


# storage


def test_a_place_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = str(tmp_path / "file")

    found = run_checks({"storage": lambda: check_storage(place, is_shared=False)}, timeout_s=60)

    assert [f.state for f in found] == ["fail"]
    assert place in found[0].found
    assert found[0].advice


def test_a_folder_that_is_not_mounted_is_missing_and_is_not_made(tmp_path: Path) -> None:
    place = tmp_path / "mount" / "runs"

    code, lines = doctor("--runs-dir", str(place))

    assert (code, lines["storage"]["state"]) == (1, "fail")
    assert lines["storage"]["found"] == f"there is no folder {place} on this machine"
    assert "mount it" in lines["storage"]["advice"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("is_absolute", "is_shared", "state"),
    [(False, False, "ok"), (False, True, "warn"), (True, False, "warn"), (True, True, "fail")],
)
def test_a_missing_folder_is_the_worse_the_more_it_looks_like_a_share(
    is_absolute: bool,
    is_shared: bool,
    state: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    place = str(tmp_path / "runs") if is_absolute else "runs"

    assert states(check_storage(place, is_shared=is_shared)) == {"storage": state}
    assert list(tmp_path.iterdir()) == []


# the judge


def judge_app(answer: Response, **model: str) -> Starlette:
    async def chat(_request: Request) -> Response:
        return answer

    async def models(_request: Request) -> Response:
        listed = {"id": "test", "object": "model", "created": 0, "owned_by": "x", **model}
        return JSONResponse({"object": "list", "data": [listed]})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/models", models),
        ]
    )


def ask(app: Starlette, tmp_path: Path) -> dict[str, dict[str, str]]:
    with served(app) as url:
        where = ["--judge-url", f"{url}/v1", "--judge-model", "test", "--runs-dir", str(tmp_path)]
        return doctor(*where)[1]


def test_the_judge_is_asked_and_its_mode_and_its_end_are_shown(tmp_path: Path) -> None:
    answer = scoring([("85", 0.9), ("80", 0.1)], text="85")

    lines = ask(judge_app(answer, shutdown_date="2027-03-01"), tmp_path)

    assert lines["judge"]["state"] == "ok"
    assert "mode logprob" in lines["judge"]["found"]
    assert lines["judge shutdown"]["state"] == "warn"
    assert "2027-03-01" in lines["judge shutdown"]["found"]


def test_a_judge_that_refuses_the_key_fails_with_the_place_to_set_it(tmp_path: Path) -> None:
    lines = ask(judge_app(error(401, "bad key")), tmp_path)

    assert lines["judge"]["state"] == "fail"
    assert "ORCHESTRATE_JUDGE_API_KEY" in lines["judge"]["found"] + lines["judge"]["advice"]


def test_a_judge_whose_url_lacks_its_end_fails_with_the_question_whether_it_does(
    tmp_path: Path,
) -> None:
    with served(judge_app(scoring([("85", 0.9)], text="85"))) as url:
        where = ["--judge-url", url, "--judge-model", "test", "--runs-dir", str(tmp_path)]
        lines = doctor(*where)[1]

    assert lines["judge"]["state"] == "fail"
    assert "end in /v1?" in lines["judge"]["found"]


def test_a_judge_url_without_a_model_is_half_a_setting(tmp_path: Path) -> None:
    _, lines = doctor("--judge-url", "http://127.0.0.1:1/v1", "--runs-dir", str(tmp_path))

    assert lines["judge"]["state"] == "fail"
    assert "--judge-model" in lines["judge"]["advice"]


def test_the_embedded_judge_is_not_called_good_for_another_model() -> None:
    (found,) = check_judge("embedded", None, demo=False)

    assert found.state == "warn"
    assert "the demo model's texts only" in found.found
    assert states(check_judge("embedded", None, demo=True)) == {"judge": "ok"}


# the checks themselves


def test_a_check_that_hangs_or_breaks_hides_no_other() -> None:
    def hangs() -> list[Checked]:
        time.sleep(5)
        return []

    def breaks() -> list[Checked]:
        raise ZeroDivisionError("broken")

    checks = {"a": hangs, "b": breaks, "c": lambda: [Checked("c", "ok", "fine")]}
    found = run_checks(checks, timeout_s=0.3)

    assert states(found) == {"a": "fail", "b": "fail", "c": "ok"}
    assert "no answer" in found[0].found
    assert "ZeroDivisionError: broken" in found[1].found


def test_what_an_error_says_and_what_it_advises_are_told_apart() -> None:
    def refused() -> list[Checked]:
        raise BrokerError("it said: no", advice="start it: now")

    (found,) = run_checks({"a": refused}, timeout_s=60)

    assert (found.found, found.advice) == ("it said: no", "start it: now")


def test_a_folder_that_takes_one_of_our_names_is_found(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").touch()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from cli.doctor.machine import check_packages\n"
        "for f in check_packages(): print(f.state, f.found)"
    )

    shown = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )

    assert shown.stdout.startswith("warn Python finds others under our names: tasks in ")


def test_secrets_that_others_can_read_are_found(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("ORCHESTRATE_JUDGE_API_KEY=x\n")
    env_file.chmod(0o644)
    code = (
        "from cli.doctor.machine import check_packages\n"
        "for f in check_packages(): print(f.check, f.state)"
    )

    shown = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )

    assert ".env warn" in shown.stdout.splitlines()
