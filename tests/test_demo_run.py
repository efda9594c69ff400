"""Protects the first thing a person does: the demo model, the embedded judge, nothing set up."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from domain.plan.samples import POLARITIES
from storage.broker.job_log import kept_log_lines
from storage.record.responses import load_activations
from storage.record.run import open_run
from storage.record.store import open_store
from tests.fleet import run_command
from traitlens.capture.sinks import are_sinks
from traitlens.vectors.files import load_vectors

MODEL = Path(__file__).parent.parent / "demo" / "model"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, here = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("here")
    # none of it is meant for the workers that a run starts for itself
    (here / "orchestrate.toml").write_text(
        "model = 'demo'\n[worker.gpu]\nmodels = 'another/*'\n[judge-server]\nmodel = 'another'\n"
    )
    elsewhere = {"ORCHESTRATE_MODELS": "another/*", "ORCHESTRATE_MODEL": "demo"}
    elsewhere["ORCHESTRATE_JUDGE_SERVER_MODEL"] = "another"
    size = ["--questions", "8", "--rollouts", "1", "--shard-samples", "16"]
    size += ["--evaluation", "1", "--causal", "6"]
    where = ["--runs-dir", str(folder), "--run", "demo"]
    ended = run_command(
        *("extract", "--traits", "evil,verbosity", *size, *where),
        mark=str(folder),
        cwd=here,
        environment=elsewhere,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / "demo"


def test_the_demo_is_usable_and_leaves_the_contracts_files(run_folder: Path) -> None:
    for trait in ("evil", "verbosity"):
        folder = run_folder / "traits" / trait
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["verdict"] == "usable"
        assert metrics["contrast"] > 40
        for name in ("definition.json", "responses.parquet", "responses/pos.csv"):
            assert (folder / name).is_file()
        for position in ("response_avg", "prompt_avg", "prompt_last"):
            assert (folder / "vectors" / f"{trait}_{position}_diff.pt").is_file()


def test_the_demo_vectors_hold_on_other_questions_and_cause_the_trait(run_folder: Path) -> None:
    for trait in ("evil", "verbosity"):
        metrics = json.loads((run_folder / "traits" / trait / "metrics.json").read_text())
        quality = metrics["quality"]

        assert metrics["is_checked"]
        auroc = quality["evaluation"]["methods"]["mean_diff"]["separation"]["auroc"]
        assert auroc["value"][quality["best"]["layer"]] > 0.9
        assert quality["causal"]["vector"]["rise"]["interval"][0] > 0
        assert quality["causal"]["rise_over_random"]["interval"][0] > 0
        assert (run_folder / "traits" / trait / "steering.parquet").is_file()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")
def test_nothing_the_command_started_is_left_running(run_folder: Path) -> None:
    logs = (run_folder / "logs" / "gpu.log").read_text()

    assert "Finished evil/generate" in logs
    kept = [line.text for line in kept_log_lines(open_store(str(run_folder)))]
    assert any(text.startswith("Finished evil/generate") for text in kept)
    alive = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            if str(run_folder.parent).encode() in (process / "environ").read_bytes():
                alive.append((process / "cmdline").read_bytes())
    assert alive == []


def test_persona_vectors_formula_on_the_exported_csv_gives_our_activations(
    run_folder: Path,
) -> None:
    """Rows 0..L-1 of `output_hidden_states`, averaged, wherever the text gives the same ids."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    run = open_run(open_store(str(run_folder)))
    table = pd.read_parquet(run_folder / "traits/evil/responses.parquet").set_index("key")
    same = 0
    compared = 0

    for job in run.plan.part_jobs(run.spec.trait("evil"), "generate", *POLARITIES)[:2]:
        activations = load_activations(run.store, job)
        for row, sample in enumerate(run.plan.samples(job)):
            kept = table.loc[sample.key]
            ids = tokenizer(
                kept.prompt + kept.response, add_special_tokens=False, return_tensors="pt"
            )["input_ids"]
            split = len(tokenizer(kept.prompt, add_special_tokens=False)["input_ids"])
            compared += 1
            if ids[0].tolist() != [*kept.prompt_token_ids, *kept.response_token_ids]:
                continue
            same += 1
            with torch.inference_mode():
                states = torch.cat(model(ids, output_hidden_states=True).hidden_states)
            # theirs is over every token of the prompt: held to it where ours leaves none out
            stays = ~are_sinks(states[:-1, :split].norm(dim=-1)).unsqueeze(-1)
            theirs = {
                "response_avg": states[:-1, split:].mean(1),
                "prompt_avg": (states[:-1, :split] * stays).sum(1) / stays.sum(1),
                "prompt_last": states[:-1, split - 1],
            }
            for position, mean in theirs.items():
                ours = torch.from_numpy(activations.at(position)[row, :-1])
                assert torch.linalg.norm(ours - mean) <= 1e-5 * torch.linalg.norm(mean)

    assert same >= compared // 2


def test_refilter_writes_beside_and_the_same_thresholds_give_the_same_vector(
    run_folder: Path,
) -> None:
    before = (run_folder / "traits/evil/metrics.json").read_bytes()

    ended = run_command(
        "refilter", "demo", "--runs-dir", str(run_folder.parent), "--threshold", "50", "--json"
    )
    stricter = run_command(
        "refilter", "demo", "--runs-dir", str(run_folder.parent), "--threshold", "80", "--json"
    )

    assert ended.returncode == 0, ended.stderr
    beside = run_folder / "traits/evil/refiltered"
    assert torch.equal(
        load_vectors(beside / "t50-c50-unpaired-mean_diff").tensor,
        load_vectors(run_folder / "traits/evil").tensor,
    )
    kept = [json.loads(e.stdout)["traits"][0]["n_kept"]["positive"] for e in (ended, stricter)]
    assert kept[1] < kept[0]
    assert (run_folder / "traits/evil/metrics.json").read_bytes() == before
