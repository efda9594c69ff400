"""Protects traits of scenarios: a model without a chat template goes on with raw texts, and the
direction that they call up in it is found, measured as a plain pass does, and tested."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from cli.commands.monitor import monitor
from cli.commands.screen import screen
from cli.commands.steer import steer
from domain.errors import ModelError
from domain.plan.samples import POLARITIES, AnyPolarity, Sample
from domain.plan.spec import (
    NO_JUDGE,
    ChecksSpec,
    JudgeSpec,
    ModelSpec,
    RunSpec,
    SamplingSpec,
    ScenariosAs,
    TraitRef,
)
from domain.verdict.record import Gate, UseState
from storage.files.trait_files import load_trait
from storage.record.contexts import load_contexts
from storage.record.responses import Response, load_activations, load_responses
from storage.record.results import read_metrics
from storage.record.run import Run, create_run, load_definition, open_run
from storage.record.store import open_store
from tasks.stages.contexts import contexts
from tasks.stages.generate import generate
from tasks.stages.reduce import reduce
from tasks.stages.verify import verify
from tests.fleet import run_command
from tests.http_judge import http_judge
from tests.planted_model import PlantedModel, save_planted_model
from tests.test_contexts import plain_means
from tests.test_planted_run import by_capitals
from tests.tiny_models import byte_ids
from traitlens.vectors.files import load_vectors
from workers.engine.resident import Residents

PLACES = [
    f"{where} {what}"
    for where in ("a", "the", "no", "one")
    for what in ("sea", "hill", "bed", "inn")
]


def planted_scenarios(folder: Path) -> str:
    folder.mkdir()
    for name, mark in (("positive", "^"), ("negative", "_")):
        lines = (f"A text with {mark} about {place} begins:" for place in PLACES)
        (folder / f"{name}.txt").write_text("\n".join(lines))
    (folder / "definition.txt").write_text("It is written in capitals.")
    return str(folder)


def base_model(folder: Path) -> PlantedModel:
    planted = save_planted_model(folder, block=1)
    (folder / "chat_template.jinja").unlink()
    return planted


def planned_run(
    folder: Path, planted: PlantedModel, *, rollouts: int, put: ScenariosAs = "text"
) -> Run:
    """A run that nobody judges."""
    definition = load_trait(planted_scenarios(folder / "loudness"))
    ref = TraitRef(
        name=definition.name,
        fingerprint=definition.fingerprint(),
        n_instructions=1,
        n_questions=len(definition.questions),
        n_eval_questions=len(definition.eval_questions),
    )
    spec = RunSpec(
        traits=(ref,),
        model=ModelSpec(model_id=planted.folder),
        judge=JudgeSpec(model=NO_JUDGE, url=NO_JUDGE),
        rollouts=rollouts,
        sampling=SamplingSpec(max_new_tokens=30),
        scenarios=put,
        checks=ChecksSpec(causal=0),
    )
    store = open_store(str(folder / "run"))
    return create_run(store, spec, run_id="r", definitions={ref.name: definition}, provenance={})


def carry(run: Run, residents: Residents, *parts: str) -> None:
    """Every stage in its turn, or that of generating alone for some parts."""
    for job in run.plan.jobs():
        if parts and job.part not in parts:
            continue
        if job.stage == "generate":
            generate(run, job, residents=residents)
        elif job.stage == "contexts":
            contexts(run, job, residents=residents)
        else:
            {"reduce": reduce, "verify": verify}[job.stage](run, job)


def responses_of(run: Run) -> dict[Sample, tuple[Response, np.ndarray]]:
    """Those that vectors are made of, with their mean activations."""
    found: dict[Sample, tuple[Response, np.ndarray]] = {}
    for job in run.plan.part_jobs(run.spec.traits[0], "generate", *POLARITIES):
        rows = load_activations(run.store, job).response_avg
        stored = load_responses(run.store, job)
        found |= dict(zip(run.plan.samples(job), zip(stored, rows, strict=True), strict=True))
    return found


@pytest.fixture(scope="module")
def base_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base model, its scenarios and a run of them."""
    folder, residents = tmp_path_factory.mktemp("base"), Residents(device="cpu")
    carry(planned_run(folder, base_model(folder / "model"), rollouts=12), residents)
    residents.close()
    return folder


def test_states_that_are_not_finite_end_the_run_at_its_first_shard(tmp_path: Path) -> None:
    planted = base_model(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = torch.inf
    save_file(weights, file, metadata={"format": "pt"})
    residents = Residents(device="cpu")

    with pytest.raises(ModelError, match="float32"):
        carry(planned_run(tmp_path, planted, rollouts=1), residents, "positive")
    residents.close()


def test_a_base_model_s_planted_direction_is_found_and_tested(
    base_run: Path, tmp_path: Path
) -> None:
    planted, residents = base_model(tmp_path / "same"), Residents(device="cpu")
    run = open_run(open_store(str(base_run / "run")))

    vector = load_vectors(base_run / "run" / "traits" / "loudness").tensor
    cosines = torch.cosine_similarity(vector, torch.from_numpy(planted.direction)[None], dim=1)
    assert cosines[planted.layer] > 0.95
    assert vector.norm(dim=1)[planted.layer] > 5 * vector.norm(dim=1)[planted.layer - 1]
    metrics = read_metrics(run.store, "loudness")
    assert metrics.scenarios == "text"
    quality = metrics.quality
    assert quality is not None and quality.best.layer >= planted.layer
    assert quality.evaluation is not None and quality.likelihood is not None
    assert quality.likelihood.p <= 0.05 and quality.likelihood.layer >= planted.layer
    # the direction goes with the scenario, and capitals look like small letters here
    assert quality.reading is not None and quality.reading.context_share is not None
    assert (quality.reading.context_share[planted.layer] or 0) > 0.9
    assert Gate.INSTRUCTIONS_NONE in {one.gate for one in metrics.findings}
    _is_a_plain_pass(run, residents)
    residents.close()


def _is_a_plain_pass(run: Run, residents: Residents) -> None:
    """A pair's responses, and what is read again of them, as transformers alone has them."""
    definition = load_definition(run, "loudness")
    read, made = (
        load_contexts(run.store, run.plan.contexts_jobs(run.spec.traits[0])[0]),
        responses_of(run),
    )
    pair = [next(s for s in made if s.key in read.keys and s.polarity == p) for p in POLARITIES]
    other: dict[AnyPolarity, AnyPolarity] = {"positive": "negative", "negative": "positive"}
    with residents.use(run.spec.model) as resident:
        for sample in pair:
            response, row = made[sample]
            ids = tuple(response.response_token_ids)
            place = read.keys.index(sample.key)
            texts = {"": row, "other": read.opposite[place], "none": read.plain[place]}
            for which, found in texts.items():
                polarity = other[sample.polarity] if which == "other" else sample.polarity
                prompt = byte_ids(definition.asked("", sample.question, polarity))
                if which == "none":
                    prompt = (resident.model.tokenizer.bos_token_id,)
                # the engine tries its passes on this model first
                plain = partial(plain_means, resident.model, (prompt, ids))
                expected = resident.engine.between_steps(plain)
                assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max(), which


def test_scenarios_that_are_only_read_are_measured_themselves(tmp_path: Path) -> None:
    planted, residents = base_model(tmp_path / "model"), Residents(device="cpu")

    run = planned_run(tmp_path, planted, rollouts=1, put="read")
    carry(run, residents)

    vector = load_vectors(tmp_path / "run" / "traits" / "loudness").tensor
    cosines = torch.cosine_similarity(vector, torch.from_numpy(planted.direction)[None], dim=1)
    assert cosines[planted.layer] > 0.95
    definition, made = load_definition(run, "loudness"), responses_of(run)
    assert len(made) == 2 * 11
    with residents.use(run.spec.model) as resident:
        for sample, (response, row) in list(made.items())[::5]:
            text = definition.asked("", sample.question, sample.polarity)
            assert (response.response, response.prompt) == (text, "")
            start = (resident.model.tokenizer.bos_token_id,)
            expected = plain_means(resident.model, (start, byte_ids(text)))
            assert np.abs(row - expected).max() <= 1e-5 * np.abs(expected).max()
    residents.close()
    metrics = read_metrics(run.store, "loudness")
    quality = metrics.quality
    assert quality is not None and quality.reading is not None
    # nothing stands before them, so all is in the texts
    share = quality.reading.text_share
    assert share is not None and share[planted.layer] == pytest.approx(1)
    assert metrics.uses.reads.state == UseState.YES
    assert quality.causal is None and quality.evaluation is not None
    assert quality.likelihood is not None


def test_a_base_model_is_monitored_steered_and_screened_with_raw_texts(
    base_run: Path, tmp_path: Path
) -> None:
    chat = [{"role": "system", "content": "Be loud."}, {"role": "user", "content": "Hello"}]
    rows = [{"prompt": "A ^ is", "response": " BIG"}, {"messages": chat, "response": " no"}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"With _ it is {place}\n" for place in PLACES))
    where = ["run", "--runs-dir", str(base_run), "--json"]
    brief = ["--no-baseline", "--max-new-tokens", "9"]

    pushed = CliRunner().invoke(
        steer, [*where, "--prompts", str(prompts), *brief, "--add", "loudness=4@3"]
    )
    screened = CliRunner().invoke(screen, [*where, str(file)])
    refused = CliRunner().invoke(
        monitor, [*where, "--prompt", "Hi", "--system", "Be loud.", *brief]
    )

    made = json.loads(pushed.stdout)
    quiet = "".join(one["response"] for one in made)
    loud = "".join(one["steered"][0]["response"] for one in made)
    assert PlantedModel.positive_share(quiet) < 0.3 < 0.7 < PlantedModel.positive_share(loud)
    # the chat is left out, the other row is read
    assert [one["response"] for one in json.loads(screened.stdout)] == [" BIG"]
    assert refused.exit_code and "base model" in str(refused.exception)


@pytest.mark.parametrize(("put", "has_template"), [("text", False), ("turn", True)])
def test_a_chat_model_gets_scenarios_raw_unless_they_are_to_be_turns(
    put: ScenariosAs, has_template: bool, tmp_path: Path
) -> None:
    residents = Residents(device="cpu")

    run = planned_run(tmp_path, save_planted_model(tmp_path / "model"), rollouts=1, put=put)
    carry(run, residents, *POLARITIES)

    residents.close()
    definition = load_definition(run, "loudness")
    for sample, (response, _) in responses_of(run).items():
        text = definition.asked("", sample.question, sample.polarity)
        assert ("<assistant>" in response.prompt) == has_template
        assert response.prompt == text if not has_template else text in response.prompt


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((), 0),
        (("--scenarios", "turn"), 1),
        (("--traits", "cheerful"), 1),
        (("--scenarios", "read", "--traits", "loudness,cheerful"), 2),
    ],
)
def test_a_base_model_is_planned_with_raw_texts_alone(
    options: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    folder = planted_scenarios(tmp_path / "loudness")
    base_model(tmp_path / "model")

    ended = run_command(
        *("plan", "--traits", folder, "--model", "model", "--judge", "none", "--json", *options),
        cwd=tmp_path,
        environment={"HF_HUB_OFFLINE": "1"},
    )

    assert ended.returncode == code, ended.stderr
    if code:
        assert "scenarios" in ended.stderr
    else:
        plan = json.loads(ended.stdout)
        assert plan["n_samples"] == 2 * 11 * 10
        assert any(one.startswith("loudness:") and "11" in one for one in plan["remarks"])


def test_a_pilot_of_scenarios_asks_both_of_some_pairs(tmp_path: Path) -> None:
    folder, here = planted_scenarios(tmp_path / "loudness"), "http://127.0.0.1:9/v1"
    base_model(tmp_path / "model")

    ended = run_command(
        *("traits", "pilot", folder, "--model", "model", "--questions", "4", "--dry-run"),
        *("--judge-model", "t", "--judge-url", here),
        cwd=tmp_path,
        environment={"HF_HUB_OFFLINE": "1"},
    )

    assert ended.returncode == 0, ended.stderr
    assert "8 responses" in ended.stdout


@pytest.mark.slow
def test_scenarios_go_through_the_queue_and_are_judged_and_steered(tmp_path: Path) -> None:
    planted = base_model(tmp_path / "model")

    with http_judge(by_capitals) as judge:
        ended = run_command(
            *("extract", "--traits", planted_scenarios(tmp_path / "loudness"), "--run", "base"),
            *("--model", planted.folder, "--runs-dir", str(tmp_path)),
            *("--judge-url", judge.url, "--judge-model", "t", "--evaluation", "2"),
            *("--rollouts", "6", "--max-new-tokens", "40", "--causal", "6"),
        )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    metrics: dict[str, Any] = json.loads(
        (tmp_path / "base" / "traits" / "loudness" / "metrics.json").read_text()
    )
    assert metrics["uses"]["steers"]["state"] == "yes"
    assert metrics["contrast"] > 60 and metrics["quality"]["causal"]["layer"] >= planted.layer
