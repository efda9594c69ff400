"""Protects the doctor's view of a model: its size, its fit, access through the Hub."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from transformers import AutoModelForCausalLM

from cli.doctor.machine import GIB, Checked, Device, check_devices, check_driver_version, run_checks
from cli.doctor.model import check_model_fits, model_size
from orchestrator.processes import orchestrate
from tests.fleet import clean_environment
from tests.http_server import served
from tests.tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_tiny_model(path, "llama", dtype=torch.bfloat16)
    return path


def gpu(total: float, free: float) -> Device:
    return Device("cuda:0", "a GPU", int(total), int(free))


def on(folder: Path, device: Device) -> Checked:
    return list(check_model_fits(str(folder), [device]))[-1]


def test_the_size_is_that_of_the_loaded_model(folder: Path) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)

    size = model_size(folder)

    assert size is not None
    n_numbers = sum(weight.numel() for weight in loaded.parameters())
    assert size.n_numbers == n_numbers
    assert size.bytes_on("cuda:0") == 2 * n_numbers
    assert size.bytes_on("cpu") == 4 * n_numbers


@pytest.mark.parametrize(
    ("total", "free", "state"), [(10, 9, "ok"), (10, 1.1, "warn"), (0.9, 0.9, "fail")]
)
def test_a_model_is_weighed_against_each_device(
    folder: Path, total: float, free: float, state: str
) -> None:
    size = model_size(folder)
    assert size is not None
    needed = size.bytes_on("cuda:0")

    found = on(folder, gpu(total * needed, free * needed))

    assert found.state == state


def checked(model: Path) -> Checked:
    found = run_checks(
        {"model": lambda: check_model_fits(str(model), [gpu(GIB, GIB)])}, timeout_s=9
    )
    return found[0]


def test_a_download_that_was_cut_off_is_found(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    whole = (folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-1])

    found = checked(tmp_path)

    assert found.state == "fail"
    assert "cut off" in found.found
    assert found.advice == "download it again"


def test_a_missing_shard_is_counted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1.safetensors").write_bytes((folder / "model.safetensors").read_bytes())

    assert "1 of 2 weight files are not in" in checked(tmp_path).found


def test_a_folder_without_a_model_fails(tmp_path: Path) -> None:
    assert "config.json" in checked(tmp_path).found
    assert "no folder" in checked(tmp_path / "absent").found


@pytest.mark.parametrize("body", ["null", "[]", '{"text_config": "x"}'])
def test_a_configuration_that_is_none_fails(folder: Path, tmp_path: Path, body: str) -> None:
    (tmp_path / "config.json").write_text(body)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())

    found = checked(tmp_path)

    assert (found.state, found.advice) == ("fail", "get it again")


def test_memory_that_another_process_holds_is_seen() -> None:
    (found, *_) = check_devices([gpu(80 * GIB, 10 * GIB)])

    assert found.state == "warn"
    assert "nvidia-smi" in found.advice


@pytest.mark.parametrize(
    ("serves", "built_for", "state"),
    [(12080, "12.9", "ok"), (13000, "12.8", "ok"), (12080, "13.0", "fail"), (13000, None, "fail")],
)
def test_a_driver_must_serve_the_cuda_that_torch_was_built_for(
    serves: int, built_for: str | None, state: str
) -> None:
    assert check_driver_version("580.1", serves=serves, built_for=built_for).state == state


# the Hub


def hub(model: Response, access: Response) -> Starlette:
    async def info(_request: Request) -> Response:
        return model

    async def check(_request: Request) -> Response:
        return access

    return Starlette(
        routes=[
            Route("/api/models/{owner}/{name}/auth-check", check),
            Route("/api/models/{owner}/{name}", info),
        ]
    )


def ask_hub(tmp_path: Path, endpoint: str, **settings: str) -> list[dict[str, str]]:
    environment = {
        **clean_environment(),
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "hub"),
        **settings,
    }
    command = orchestrate("doctor", "--json", "--model", "org/model")
    ended = subprocess.run(
        [*command, "--runs-dir", str(tmp_path)], env=environment, capture_output=True, text=True
    )
    found: list[dict[str, str]] = json.loads(ended.stdout)["findings"]
    return [line for line in found if line["check"].startswith("model")]


def test_a_model_of_the_hub_is_weighed_before_it_is_downloaded(tmp_path: Path) -> None:
    parameters = {"BF16": 500 * GIB}
    info = JSONResponse(
        {"id": "org/model", "safetensors": {"parameters": parameters, "total": 500 * GIB}}
    )

    with served(hub(info, Response())) as endpoint:
        access, fit = ask_hub(tmp_path, endpoint)

    assert "1000.0 GiB to download" in access["found"]
    # no test machine has a terabyte
    assert access["state"] == fit["state"] == "fail"
    assert "HF_HOME" in access["advice"]


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [(403, "GatedRepo", "accept its license"), (404, "RepoNotFound", "check its spelling")],
)
def test_a_model_that_we_may_not_have_says_what_to_do(
    tmp_path: Path, status: int, code: str, words: str
) -> None:
    refusal = JSONResponse({}, status_code=status, headers={"X-Error-Code": code})

    with served(hub(refusal, refusal)) as endpoint:
        (found,) = ask_hub(tmp_path, endpoint)

    assert found["state"] == "fail"
    assert words in found["advice"]


def test_a_hub_that_does_not_answer_and_a_machine_set_offline_are_told_apart(
    tmp_path: Path,
) -> None:
    (unreachable,) = ask_hub(tmp_path, "http://127.0.0.1:1")
    (offline,) = ask_hub(tmp_path, "http://127.0.0.1:1", HF_HUB_OFFLINE="1")

    assert "does not answer" in unreachable["found"]
    assert "HF_HUB_OFFLINE" in offline["found"]
    assert "--model PATH" in unreachable["advice"]
