"""Protects readers of docs/notebook.md: its blocks run from top to bottom, in one session.

The model is a small random one of Gemma 2's family; everything else is as the page has it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.page_code import code_of
from tests.tiny_models import SHAPE, save_tiny_model
from traitlens.vectors.files import save_vectors
from traitlens.vectors.trait_vector import Provenance, TraitVector

PAGE = Path(__file__).parent.parent / "docs" / "notebook.md"
MODEL = "google/gemma-2-2b-it"
N_BLOCKS, WIDTH = 17, int(str(SHAPE["hidden_size"]))
N = 40
PROMPTS = [f"q{k % 8}" for k in range(N)]
POSITIONS = ("response_avg", "prompt_avg", "prompt_last")


def test_the_blocks_of_the_page_run_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save_tiny_model(tmp_path / "model", "gemma2", changes={"num_hidden_layers": N_BLOCKS})
    lay_out_run(tmp_path)
    names = at_hand()

    blocks = [code for code in code_of(PAGE.read_text("utf-8")) if code.language == "python"]
    for block in blocks:
        place = f"{PAGE.name}, line {block.line}"
        text = block.text.replace(MODEL, folder)
        if find_spec("steering_vectors") is None:
            text = re.sub(r".*# pip install steering-vectors", "", text)
        exec(compile(text, place, "exec"), names)

    # what the page says of the results, beside that they come
    assert names["states"].shape[1] == names["out"].shape[1] - 1
    assert names["chance"].random_p.shape == (N_BLOCKS + 1,)
    assert names["held_out"].auroc.value[16] > 0.9
    assert names["result"]["dynamics"]["refusal"]["persistence"] == 1


def lay_out_run(folder: Path) -> None:
    """The files that the page loads."""
    generator = torch.Generator().manual_seed(0)
    rows = {p: torch.randn(N_BLOCKS + 1, WIDTH, generator=generator) for p in POSITIONS}
    vector = TraitVector(rows, Provenance(trait="refusal", method="mean_diff", model_id=MODEL))
    vectors = folder / "runs/gemma/traits/refusal/vectors"
    vectors.mkdir(parents=True)
    for method in ("mean_diff", "probe"):
        provenance = replace(vector.provenance, method=method)
        save_vectors(TraitVector(rows, provenance), vectors / f"{method}.safetensors")
    save_vectors(vector, folder / "refusal_response_avg_diff.pt")


def at_hand() -> dict[str, Any]:
    """What the page takes for granted: activations that differ, scores and tokens."""
    generator = torch.Generator().manual_seed(1)

    def side(shift: float) -> torch.Tensor:
        return torch.randn(N, N_BLOCKS + 1, WIDTH, generator=generator) + shift

    def scores(n_tokens: int) -> Any:
        return torch.randn(n_tokens, 1, generator=generator).numpy()

    folds = ("prompts", "instructions", "questions")
    return {
        **{"pos": side(0.5), "neg": side(0.0), "new_pos": side(0.5), "new_neg": side(0.0)},
        **{f"{one}_{fold}": PROMPTS for one in ("pos", "neg") for fold in folds},
        "new_prompts": (PROMPTS, PROMPTS),
        "neutral_scores": [scores(20) for _ in range(100)],
        "new_scores": scores(20),
        "tokens": ["I", " can", "not", " help"],
        "refusal_scores": [0.0, 0.5, 1.0, 0.8],
    }
