"""Protects the figures of reading on a real language model: what a run says is what plain numpy
makes of the arrays that it stored."""

from __future__ import annotations

import numpy as np
import pytest

from demo.real_model import real_model
from domain.errors import ModelError
from domain.plan.samples import POLARITIES
from domain.verdict.record import Quality
from storage.record.contexts import load_contexts
from storage.record.responses import load_activations
from storage.record.results import kept_keys, read_metrics
from storage.record.run import Run, open_run
from storage.record.store import open_store
from tests.fleet import run_command
from workers.models.model import load_model

TRAITS = ("cheerful", "wordy")
N_FOLDS = 5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    try:
        model = str(real_model())
    except ModelError as error:
        pytest.skip(f"no real model here: {error}")
    folder = tmp_path_factory.mktemp("runs")
    load_model(model, device="cpu")
    size = ["--questions", "10", "--rollouts", "2", "--evaluation", "1", "--causal", "0"]
    ended = run_command(
        *("extract", "--traits", ",".join(TRAITS), "--model", model, *size),
        *("--max-new-tokens", "40", "--runs-dir", str(folder), "--run", "real"),
        mark=str(folder),
        timeout_s=3000,
    )
    assert ended.returncode in (0, 3), ended.stdout + ended.stderr
    return open_run(open_store(str(folder)).at("real"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("trait", TRAITS)
def test_figures_are_those_of_a_plain_computation(run: Run, trait: str) -> None:
    quality = read_metrics(run.store, trait).quality

    assert quality is not None and quality.reading is not None
    assert_as_computed(run, trait, quality)
    assert quality.likelihood is not None and 0.001 <= quality.likelihood.p <= 1


def assert_as_computed(run: Run, trait: str, quality: Quality) -> None:
    """AUROC without an instruction and in the texts' own, and the parts' shares, to 1e-5."""
    rows, is_pos, question, at = kept_rows(run, trait)
    contexts = load_contexts(run.store, run.plan.contexts_jobs(run.spec.trait(trait))[0])
    chosen = [k for k, key in enumerate(contexts.keys) if key in at]
    mine = [at[contexts.keys[k]] for k in chosen]
    own, sides = rows[mine], is_pos[mine]
    opposite, plain = contexts.opposite[chosen].astype(float), contexts.plain[chosen].astype(float)
    found = quality.reading
    assert found is not None and found.auroc is not None and found.in_context_auroc is not None
    assert found.text_share is not None and found.context_share is not None

    n_layers = rows.shape[1]
    for layer in range(1, n_layers):
        scores = np.zeros((2, len(mine)))
        for k, row in enumerate(mine):
            others = question % N_FOLDS != question[row] % N_FOLDS
            means = [rows[others & side, layer].mean(axis=0) for side in (is_pos, ~is_pos)]
            unit = (means[0] - means[1]) / np.linalg.norm(means[0] - means[1])
            middle = (means[0] + means[1]) / 2
            scores[:, k] = (plain[k, layer] - middle) @ unit, (own[k, layer] - middle) @ unit
        pairs = [score[sides][:, None] - score[~sides][None] for score in scores]
        aurocs = [float((pair > 0).mean() + (pair == 0).mean() / 2) for pair in pairs]
        assert found.auroc.value[layer] == pytest.approx(aurocs[0], abs=1e-5)
        assert found.in_context_auroc.value[layer] == pytest.approx(aurocs[1], abs=1e-5)

        p, n = own[sides, layer].mean(axis=0), own[~sides, layer].mean(axis=0)
        p_n, n_p = opposite[sides, layer].mean(axis=0), opposite[~sides, layer].mean(axis=0)
        text, whole = (p + p_n - n_p - n) / 2, p - n
        share = float(text @ whole / (whole @ whole))
        assert found.text_share[layer] == pytest.approx(share, abs=1e-5)
        assert found.context_share[layer] == pytest.approx(1 - share, abs=1e-5)


def kept_rows(run: Run, trait: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, int]]:
    """Stored activations of what was kept, their polarity and question, and the row of a key."""
    kept, rows, samples = kept_keys(run.store, f"traits/{trait}"), [], []
    for job in run.plan.part_jobs(run.spec.trait(trait), "generate", *POLARITIES):
        stored = load_activations(run.store, job).response_avg
        for sample, row in zip(run.plan.samples(job), stored, strict=True):
            if sample.key in kept:
                rows.append(row.astype(float))
                samples.append(sample)
    return (
        np.stack(rows),
        np.array([sample.polarity == "positive" for sample in samples]),
        np.array([sample.question for sample in samples]),
        {sample.key: k for k, sample in enumerate(samples)},
    )
