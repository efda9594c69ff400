"""Protects the seed documents' code blocks: they run as written, only paths and names substituted.

The blocks are quoted from seed 003 (`main.md`) and the vector check of seed 002. Where a document
says something that cannot be, the test says which line and what ours does.
"""

from __future__ import annotations

import asyncio
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import LlamaConfig, LlamaForCausalLM

from cli.main import orchestrate
from cli.options.using import prompt_options_of
from domain.scoring.scores import Unscored
from domain.traits.definition import BUNDLED_TRAITS
from storage.files.transcripts import PROMPT_SETS
from tests.http_judge import http_judge, scoring
from tests.planted_vectors import planted_run
from traitlens import ActivationSteerer, load_vectors
from traitlens.compute import projection
from traitlens.dynamics.trajectory import analyze, find_commitment_point, persistence_absolute
from traitlens.errors import LayerError
from traitlens.methods import MeanDifferenceMethod
from traitlens.vectors.files import to_persona_vectors_pt_bytes
from workers.judge.openai_judge import OpenAiJudge

WIDTH, BLOCKS = 16, 3

MONITOR = """
from traitlens import HookManager, ActivationCapture, projection
import torch

# Load vectors
vectors = {
    'refusal': torch.load('experiments/gemma_2b_it_nov12/refusal/vectors/probe_layer16.pt'),
    # ... more traits
}

# Monitor during generation
capture = ActivationCapture()
with HookManager(model) as hooks:
    hooks.add_forward_hook("model.layers.16", capture.make_hook("layer_16"))
    output = model.generate(**inputs)

# Calculate projections
acts = capture.get("layer_16")
trait_scores = {name: projection(acts, vec) for name, vec in vectors.items()}
"""

CAPTURE = """
from traitlens import HookManager, ActivationCapture

capture = ActivationCapture()
with HookManager(model) as hooks:
    hooks.add_forward_hook("model.layers.16", capture.make_hook("layer_16"))
    model.generate(**inputs)

activations = capture.get("layer_16")  # [batch, seq_len, hidden_dim]
"""

DYNAMICS = """
from traitlens.compute import compute_derivative, compute_second_derivative, projection

# Capture trajectory during generation
trajectory = ...  # [n_tokens, hidden_dim]

# Project onto trait vector
trait_scores = projection(trajectory, trait_vector)  # [n_tokens]

# Compute velocity (1st derivative)
velocity = compute_derivative(trait_scores.unsqueeze(-1))

# Compute acceleration (2nd derivative)
acceleration = compute_second_derivative(trait_scores.unsqueeze(-1))

# Find commitment point (where acceleration drops)
commitment_idx = (acceleration.abs() < 0.1).nonzero()[0]

# Measure persistence (duration above threshold)
peak_idx = trait_scores.argmax()
persistence = (trait_scores[peak_idx:].abs() > 0.5).sum()
"""

STEERER_002 = """
from core.activation_steer import ActivationSteerer

with ActivationSteerer(model, vector, coeff=1.0, layer_idx=15, positions="response"):
    output = model.generate(...)
"""

JUDGE = """
from utils.judge import OpenAiJudge

judge = OpenAiJudge(
    model="gpt-5-mini",
    prompt_template=eval_prompt,
    eval_type="0_100"
)
score = await judge.judge(question=q, answer=a)
"""

METHODS = {
    "mean difference": """
from traitlens import MeanDifferenceMethod
method = MeanDifferenceMethod()
result = method.extract(pos_activations, neg_activations)
vector = result['vector']
""",
    "linear probe": """
from traitlens import ProbeMethod
method = ProbeMethod()
result = method.extract(pos_activations, neg_activations)
vector = result['vector']
train_acc = result['train_acc']
""",
    "ica": """
from traitlens import ICAMethod
method = ICAMethod(n_components=10)
result = method.extract(pos_activations, neg_activations)
vector = result['vector']  # Component with best separation
""",
    "gradient": """
from traitlens import GradientMethod
method = GradientMethod(num_steps=100, lr=0.01)
result = method.extract(pos_activations, neg_activations)
vector = result['vector']
""",
}

VERIFY = """
import torch
vector = torch.load('experiments/my_exp/my_trait/vectors/probe_layer16.pt')
print(f"Norm: {vector.norm():.2f}")
"""

VERIFY_002 = """
import torch
v = torch.load('persona_vectors/gemma-2-2b-it/refusal_response_avg_diff.pt')
print(f"Shape: {v.shape}")
print(f"Magnitude: {v.norm(dim=1).mean().item():.2f}")
"""

# Seed 003, "Output Format": the scores of its worked example.
WORKED_EXAMPLE = [0.5, 2.3, 2.1, 1.8, 1.5, 1.2, 0.8]


def run(snippet: str, substitutions: dict[str, str], **given: Any) -> dict[str, Any]:
    """Execute a snippet with names given and texts substituted; every substitution must apply."""
    for old, new in substitutions.items():
        assert old in snippet
        snippet = snippet.replace(old, new)
    names = dict(given)
    exec(compile(snippet, "seed snippet", "exec"), names)
    return names


@pytest.fixture
def given_model() -> dict[str, Any]:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=BLOCKS,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=None,
    )
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "max_new_tokens": 4}
    return {"model": LlamaForCausalLM(config).eval(), "inputs": inputs}


@pytest.fixture
def sides() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pos = torch.randn(200, WIDTH, generator=generator)
    pos[:, 3] += 6
    return {
        "pos_activations": pos,
        "neg_activations": torch.randn(200, WIDTH, generator=generator),
    }


def test_the_monitoring_block_scores_every_token(
    given_model: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "vector.pt"
    torch.save(torch.arange(1.0, WIDTH + 1), path)

    names = run(
        MONITOR,
        {
            "experiments/gemma_2b_it_nov12/refusal/vectors/probe_layer16.pt": str(path),
            # "model.layers.16" is block 16, whose output is layer 17 of our arrays; seed 002's
            # "layer 16" is the output of block 15. Ours takes either name and prints both.
            "model.layers.16": "model.layers.1",
        },
        **given_model,
    )

    # In the documented version this line raised: decode steps were joined along the batch.
    # 3 prompt tokens and 4 generated ones, of which the last is never fed back to the model.
    assert names["acts"].shape == (2, 3 + 4 - 1, WIDTH)
    expected = names["acts"] @ (torch.arange(1.0, WIDTH + 1) / torch.arange(1.0, WIDTH + 1).norm())
    assert torch.allclose(names["trait_scores"]["refusal"], expected, atol=1e-5)


def test_the_capture_block_gives_batch_sequence_hidden(given_model: dict[str, Any]) -> None:
    names = run(CAPTURE, {"model.layers.16": "model.layers.1"}, **given_model)

    assert names["activations"].shape == (2, 6, WIDTH)


@pytest.mark.parametrize("name", METHODS)
def test_the_method_blocks_recover_a_planted_direction(
    name: str, sides: dict[str, torch.Tensor]
) -> None:
    names = run(METHODS[name], {}, **sides)

    # The documented versions of ICAMethod and GradientMethod took no arguments, ica returned
    # component 0 instead of "Component with best separation", gradient was NaN in float16.
    unit = names["vector"] / names["vector"].norm()
    assert unit[3] > 0.9
    assert names.get("train_acc", 1.0) > 0.95


def test_the_dynamics_block_runs_and_agrees_with_the_formulas_by_name() -> None:
    trait_vector = torch.tensor([2.0, 0.0])
    trajectory = torch.tensor([[score, 9.0] for score in WORKED_EXAMPLE])

    names = run(DYNAMICS, {"trajectory = ...": "trajectory = measured"},
                measured=trajectory, trait_vector=trait_vector)  # fmt: skip

    scores = names["trait_scores"]
    assert scores.tolist() == pytest.approx(WORKED_EXAMPLE)
    # `.nonzero()[0]` of a column is a pair (token, 0), and raises IndexError where no acceleration
    # is small; ours gives the token alone, or None.
    assert names["commitment_idx"].tolist() == [find_commitment_point(scores), 0]
    # The block counts with an absolute 0.5 and includes the peak; the code it documents used half
    # of the peak and left it out. Ours has both: persistence_absolute and persistence.
    assert names["persistence"] == persistence_absolute(scores) == 6


def test_the_worked_example_of_the_output_format_follows_no_formula() -> None:
    tokens = ["The", " capital", " of", " France", " is", " Paris", "."]

    ours = analyze(tokens, {"x": WORKED_EXAMPLE})["dynamics"]["x"]

    # The document says commitment_point 2, avg_velocity 0.95, persistence 3, with 5 velocities and
    # 4 accelerations for 7 tokens. Seven tokens have 6 and 5; the others follow from the formulas.
    assert ours["peak_velocity"] == pytest.approx(1.8)
    assert ours["commitment_point"] == 1
    assert ours["avg_velocity"] == pytest.approx(0.55)
    assert ours["persistence"] == 4
    assert (len(ours["velocity_profile"]), len(ours["acceleration_profile"])) == (6, 5)


def test_the_score_formula_is_the_projection(sides: dict[str, torch.Tensor]) -> None:
    hidden, vector = sides["pos_activations"], torch.arange(1.0, WIDTH + 1)

    # score = (hidden_state . trait_vector) / ||trait_vector||
    naive = [float((row * vector).sum() / (vector**2).sum().sqrt()) for row in hidden]

    assert projection(hidden, vector).tolist() == pytest.approx(naive, abs=1e-5)


def test_the_norm_check_runs_on_our_vectors(
    sides: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vector = MeanDifferenceMethod().extract(**_as_arguments(sides))["vector"]
    torch.save(vector, tmp_path / "v.pt")

    run(VERIFY, {"experiments/my_exp/my_trait/vectors/probe_layer16.pt": str(tmp_path / "v.pt")})

    # "Good norm: 15-40 for normalized vectors" cannot mean what it says, a normalized vector has
    # norm 1. Ours are raw; judge a norm against the residual stream's, kept beside the vector.
    assert capsys.readouterr().out == f"Norm: {float(vector.norm()):.2f}\n"


def test_seed_002s_check_reads_our_persona_vectors_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "refusal_response_avg_diff.pt"
    path.write_bytes(to_persona_vectors_pt_bytes(torch.full((27, 2304), 0.5)))

    run(VERIFY_002, {"persona_vectors/gemma-2-2b-it/refusal_response_avg_diff.pt": str(path)})

    # 27 rows: the embeddings and 26 blocks. The last row of ours is before the final norm.
    assert capsys.readouterr().out == "Shape: torch.Size([27, 2304])\nMagnitude: 24.00\n"


def _as_arguments(sides: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"pos_acts": sides["pos_activations"], "neg_acts": sides["neg_activations"]}


STEERER_NAMES = {
    "from core.activation_steer": "from traitlens",
    "layer_idx=15": "layer_idx=1",
    "model.generate(...)": "model.generate(**inputs)",
}


def test_the_steering_block_steers_the_output_of_its_block_and_response_tokens_alone(
    given_model: dict[str, Any],
) -> None:
    model, seen = given_model["model"], []
    vector = torch.arange(1.0, WIDTH + 1)

    def note(module: Any, arguments: Any, output: torch.Tensor) -> None:
        seen.append(output.detach().clone())

    def block_output(**names: Any) -> list[torch.Tensor]:
        seen.clear()
        run(STEERER_002, STEERER_NAMES | names, vector=vector, **given_model)
        return list(seen)

    # after steering, which is applied when the block returns
    model.model.layers[2].register_forward_pre_hook(
        lambda module, given: note(module, None, given[0])
    )
    plain = block_output(**{"coeff=1.0": "coeff=0"})
    steered = block_output()

    # the prompt's pass is untouched, and so is the first generated token's choice
    assert torch.equal(plain[0], steered[0])
    moved = (steered[1] - plain[1])[:, -1]
    assert torch.allclose(moved, vector.expand_as(moved), atol=1e-5)
    with pytest.raises(LayerError):
        ActivationSteerer(model, vector, layer_idx=BLOCKS)


@pytest.mark.parametrize("eval_type", ["0_100", "binary"])
def test_the_judge_block_scores_an_answer(eval_type: str) -> None:
    tops = {"0_100": [("80", 0.75), ("60", 0.25)], "binary": [("YES", 0.8), ("NO", 0.2)]}
    expected = {"0_100": 75.0, "binary": 80.0}
    snippet = "async def asked():\n" + textwrap.indent(JUDGE, "    ") + "    return score, judge\n"

    async def score(names: dict[str, Any]) -> float:
        found, judge = await names["asked"]()
        await judge.close()
        return float(found)

    with http_judge(lambda body, call: scoring(tops[eval_type])) as server:
        names = run(
            snippet,
            {
                "from utils.judge": "from workers.judge.openai_judge",
                'eval_type="0_100"': f'eval_type="{eval_type}", base_url="{server.url}"',
            },
            eval_prompt="Rate {answer} to {question} from 0 to 100.",
            q="why?",
            a="because {x}",
        )
        found = asyncio.run(score(names))

    assert found == pytest.approx(expected[eval_type])
    # the answer's own braces reach the judge as they are
    assert "because {x} to why?" in server.asked[-1]["messages"][0]["content"]


def test_a_judge_that_declines_gives_no_number_and_says_why() -> None:
    async def ask(url: str) -> tuple[float | None, Any]:
        judge = OpenAiJudge("m", "{question} {answer}", base_url=url)
        found = await judge.judge(question="q", answer="a")
        why = await judge.scoring(question="q", answer="a")
        await judge.close()
        return found, why

    with http_judge(lambda body, call: scoring([("REFUSAL", 0.9), ("10", 0.1)])) as server:
        found, why = asyncio.run(ask(server.url))

    assert found is None
    assert isinstance(why, Unscored)
    assert why.reason == "refused"


def test_the_norm_check_runs_on_an_exported_file_of_one_method_and_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = planted_run(tmp_path / "planted")
    folder = tmp_path / "my_exp"
    exported = CliRunner().invoke(
        orchestrate,
        [
            *("export", made.name, "--runs-dir", str(made.runs_dir), "--traits", "capitals"),
            *("--format", "layer-files", "--output", str(folder)),
        ],
    )
    assert exported.exit_code == 0, exported.output
    capsys.readouterr()
    original = load_vectors(f"{made.run.store.url}/traits/capitals")

    place = str(folder / "capitals" / "vectors" / "mean_diff_layer2.pt")
    run(VERIFY, {"experiments/my_exp/my_trait/vectors/probe_layer16.pt": place})

    assert capsys.readouterr().out == f"Norm: {float(original.at(2).norm()):.2f}\n"
    layers = {one.name for one in (folder / "capitals" / "vectors").iterdir()}
    assert layers == {f"mean_diff_layer{k}.pt" for k in range(len(original.tensor))}


def test_one_command_gives_the_output_format_with_dynamics(tmp_path: Path) -> None:
    made = planted_run(tmp_path / "planted")
    prompts, output = tmp_path / "test_prompts.txt", tmp_path / "results.json"
    prompts.write_text("What is the capital of France?\nHow are you?\nTell me 3 things.\n")

    ended = CliRunner().invoke(
        orchestrate,
        [
            *("monitor", made.name, "--runs-dir", str(made.runs_dir), "--traits", "capitals"),
            *("--prompts", str(prompts), "--output", str(output)),
            *("--no-baseline", "--max-new-tokens", "12"),
        ],
    )

    assert ended.exit_code == 0, ended.output
    records = json.loads(output.read_text())
    assert [one["prompt"] for one in records] == prompts.read_text().splitlines()
    # seed 003, "Output Format": every name of it, and lengths that belong to the tokens
    measures = {"commitment_point", "peak_velocity", "avg_velocity", "persistence"}
    for one in records:
        n = len(one["tokens"])
        assert len(one["trait_scores"]["capitals"]) == n
        dynamics = one["dynamics"]["capitals"]
        assert measures <= dynamics.keys()
        assert len(dynamics["velocity_profile"]) == max(n - 1, 0)
        assert len(dynamics["acceleration_profile"]) == max(n - 2, 0)
    assert max(len(one["tokens"]) for one in records) > 2


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_the_sets_of_prompts_have_each_bundled_trait_and_are_read_as_files_are(name: str) -> None:
    values = {"texts": (), "file": Path(name), "system": None, "outputs": ()}

    found = prompt_options_of(values)

    expected = {("high", "low"), ("falls", "rises")}
    by_trait: dict[str, set[str]] = {}
    for one in found:
        by_trait.setdefault(one.facts["trait"], set()).add(one.facts["expected"])
    assert set(by_trait) == set(BUNDLED_TRAITS)
    assert set().union(*by_trait.values()) in map(set, expected)
    if name == "teaching":
        assert all(len(sides) == 2 for sides in by_trait.values())
    assert len({one.shown for one in found}) == len(found)
