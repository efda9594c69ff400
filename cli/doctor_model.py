"""The model: can it be had from here, and does it fit the devices?

Sizes come from safetensors headers and config.json, without torch and without a download.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from cli.doctor_finding import GIB, Finding
from cli.doctor_hub import cached_folder, hub_findings, hub_size
from cli.doctor_machine import Device
from cli.doctor_weights import ModelSize, model_size
from orchestrator.errors import ModelError

DEMO_MODEL = "demo"
# A GPU worker loads onto one device when the weights take no more than this share of it.
WEIGHT_SHARE = 0.8
SLOW_ON_CPU = 2_000_000_000


def model_findings(model_id: str, devices: list[Device]) -> Iterator[Finding]:
    """Access first, then a line for each device."""
    folder = local_folder(model_id)
    if folder is None:
        yield from hub_findings(model_id)
        size = hub_size(model_id)
    else:
        size = model_size(folder)
        yield Finding("model", "ok", f"{model_id}: {_billions(size)}, complete in {folder}")
    if size is not None:
        yield from (_fit(size, device) for device in devices)


def local_folder(model_id: str) -> Path | None:
    """Where the model's files are on this machine; None when they are not, or not all.

    Raises ModelError for a path that holds no model.
    """
    if model_id == DEMO_MODEL:
        spec = importlib.util.find_spec("demo")
        assert spec is not None and spec.origin is not None
        return Path(spec.origin).parent / "model"
    given = Path(model_id).expanduser()
    if given.is_dir():
        if not (given / "config.json").is_file():
            raise ModelError(f"{given} has no config.json: give the folder of a saved model")
        return given
    if model_id.startswith(("/", "./", "../", "~")):
        raise ModelError(f"no folder {given} on this machine: check --model")
    return cached_folder(model_id)


def _fit(size: ModelSize, device: Device) -> Finding:
    needed = size.bytes_on(device.name)
    check = f"model on {device.name}"
    text = f"weights {needed / GIB:.2f} GiB, {device.free_bytes / GIB:.1f} GiB free"
    if needed > device.total_bytes:
        advice = "choose a device with more memory, or a smaller model"
        return Finding(check, "fail", f"{text}: they cannot fit", advice)
    if needed > WEIGHT_SHARE * device.free_bytes:
        advice = "free memory there, or take a larger device: responses under way need room too"
        return Finding(check, "warn", f"{text}: little or nothing is left for responses", advice)
    if device.name == "cpu" and size.n_numbers > SLOW_ON_CPU:
        advice = "it will run, slowly: use a machine with a GPU for more than a try"
        return Finding(check, "warn", text, advice)
    return Finding(check, "ok", text)


def _billions(size: ModelSize | None) -> str:
    if size is None:
        return "size unknown (weights are not in safetensors)"
    return f"{size.n_numbers / 1e9:.3g} B parameters in {size.dtype}"
