"""The NVIDIA driver against the installed torch.

torch is never imported: it takes seconds, and what is asked stands in its version file.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from cli.doctor_finding import Finding
from cli.doctor_machine import Device


def driver_findings(found: list[Device]) -> Iterator[Finding]:
    """Whether the installed torch can use the devices, or why there are none."""
    if found[0].name.startswith("cuda"):
        driver, serves = _driver()
        yield driver_finding(driver, serves=serves, built_for=torch_cuda())
    elif shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists():
        yield Finding(
            "driver",
            "warn",
            "an NVIDIA device is here but none can be used",
            "check `nvidia-smi` and CUDA_VISIBLE_DEVICES; in a container pass --gpus all",
        )


def driver_finding(driver: str, *, serves: int, built_for: str | None) -> Finding:
    """A driver against torch; `serves` is its newest CUDA, 12080 for 12.8."""
    if built_for is None:
        return Finding(
            "driver",
            "fail",
            f"driver {driver} is here, but torch is a build for CPUs",
            "install torch for CUDA in this environment (see pytorch.org)",
        )
    # within a major version an older driver serves newer libraries
    if int(built_for.partition(".")[0]) > serves // 1000:
        return Finding(
            "driver",
            "fail",
            f"driver {driver} serves CUDA {serves // 1000}, torch is built for {built_for}",
            "update the driver, or install a torch built for the driver's CUDA",
        )
    return Finding("driver", "ok", f"NVIDIA {driver}, torch built for CUDA {built_for}")


def torch_cuda() -> str | None:
    """The CUDA version the installed torch was built for; None without torch or for a CPU build."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    built_for = re.search(r"^cuda\b[^=]*= '([\d.]+)'", text, re.MULTILINE)
    return built_for.group(1) if built_for else None


def _driver() -> tuple[str, int]:
    import pynvml

    pynvml.nvmlInit()
    try:
        supports = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        return str(pynvml.nvmlSystemGetDriverVersion()), supports
    finally:
        pynvml.nvmlShutdown()
