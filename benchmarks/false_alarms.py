"""How often neutral answers of a real model are flagged, at each length, beside what was promised.

    python benchmarks/false_alarms.py --model SmolLM2-135M-Instruct.Q4_1.gguf
    python benchmarks/false_alarms.py --model google/gemma-2-2b-it --traits evil,refusal

Makes the vectors of the traits (positive less negative instructions, every answer kept: there is no
judge) and one neutral answer to each question of all bundled traits and of our own. Baselines are
made of the answers to 200 questions drawn at random and held against the answers to the others, so
often; shares are means over these draws. `by tenths` holds each tenth of all answers against the
thresholds of the others, as `monitor` does, with an exact interval. `one threshold` is how flags
were raised before: the threshold of whole answers at every length. Ends with 1 where a share leaves
what is promised.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from domain.plan.samples import POLARITIES
from domain.traits.definition import BUNDLED_TRAITS, TraitDefinition
from domain.traits.neutral import neutral_samples
from storage.files.trait_files import load_trait
from traitlens.arrays import Float32, Float64
from traitlens.dynamics.baseline import Baseline, What
from traitlens.dynamics.change_point import NeutralSteps, find_change_point
from workers.engine.engine import Engine, build_engine
from workers.engine.generation import Generation, GenerationRequest, Sampling, UnitVectors
from workers.models.chat import render_prompt
from workers.models.model import load_model

NOMINAL = 0.05
LENGTHS = (3, 5, 10, 20, 40)
N_BASELINE = 200
N_DRAWS = 50
N_STEPS = 5
N_QUESTIONS = 10
LOW, HIGH, HIGHEST_OF_ANY = 0.03, 0.08, 0.07


def main() -> None:
    """Generate, measure, print a table in Markdown, and exit by the limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--traits", default="evil,verbosity")
    parser.add_argument("--layer", type=int, help="of all traits; the middle one if left out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", type=Path, help="an .npz of the projections, read if it is there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    traits = options.traits.split(",")
    if options.keep and options.keep.exists():
        answers = list(np.load(options.keep)["answers"])
    else:
        engine = build_engine(load_model(options.model, device=options.device))
        layer = options.layer or engine.model.n_layers // 2
        directions = make_directions(engine, [load_trait(one) for one in traits], layer)
        answers = neutral_projections(engine, directions)
        if options.keep:
            np.savez(options.keep, answers=np.stack(answers))
    print(f"{len(answers)} neutral answers of {max(LENGTHS)} tokens, each to a question of its own")
    sys.exit(1 if report(answers, traits) else 0)


def make_directions(
    engine: Engine, definitions: Sequence[TraitDefinition], layer: int
) -> UnitVectors:
    """The mean difference of each trait at the layer, of all answers."""
    rows = []
    for number, one in enumerate(definitions):
        means = []
        for side, polarity in enumerate(POLARITIES):
            asked = [
                (one.system_turn(i, polarity), question)
                for i in range(len(one.instruction))
                for question in one.questions[:N_QUESTIONS]
            ]
            made = answered(engine, asked, seed=100_000 * number + 10_000 * side)
            means.append(np.mean([row.response_avg[layer] for row in made], axis=0))
        rows.append(means[0] - means[1])
    units = np.stack(rows) / np.linalg.norm(rows, axis=1, keepdims=True)
    return UnitVectors((layer,) * len(rows), units.astype(np.float32))


def neutral_projections(engine: Engine, directions: UnitVectors) -> list[Float32]:
    """The projections [tokens, k] of neutral answers, none of which ends early."""
    definitions = [load_trait(name) for name in BUNDLED_TRAITS]
    asked = [
        (None, one.question) for one in neutral_samples(definitions, seed=0, n_of_traits=10**4)
    ]
    made = answered(engine, asked, seed=10**6, directions=directions)
    found = []
    for one in made:
        assert one.projections is not None
        found.append(one.projections[len(one.request.prompt_ids) :, 0])
    return [one for one in found if len(one) == max(LENGTHS)]


def answered(
    engine: Engine,
    asked: Sequence[tuple[str | None, str]],
    *,
    seed: int,
    directions: UnitVectors | None = None,
) -> list[Generation]:
    """Answers to (instruction, question) of up to 40 tokens, without the empty ones."""
    model, sampling = engine.model, Sampling(max(LENGTHS))
    prompts = [render_prompt(model, system=system, user=user) for system, user in asked]
    requests = [
        GenerationRequest(prompt.token_ids, seed + i, sampling, None, directions)
        for i, prompt in enumerate(prompts)
    ]
    engine.add(requests)
    made: dict[GenerationRequest, Generation] = {}
    while engine.has_work:
        made |= {one.request: one for one in engine.step()}
    return [made[one] for one in requests if made[one].response_ids]


def report(answers: Sequence[Float32], traits: Sequence[str]) -> bool:
    """Print the tables; whether a share leaves the limits."""
    names = [*traits, "any of them"]
    head = [*(f"{name}" for name in names), *(f"{name}, one threshold" for name in names)]
    print(f"\n| tokens | {' | '.join(head)} | a mark anywhere | any of them, by tenths |")
    print("|--:" * (len(head) + 3) + "|")
    failed = False
    for n_tokens in LENGTHS:
        now, before, marks = shares(answers, n_tokens)
        exact = Baseline.of(answers).held_out_rate(NOMINAL, n_tokens).share
        cells = [f"{share:.1%}" for share in (*now, *before, marks[-1])]
        cells.append(f"{exact.value[-1]:.1%} ({exact.low[-1]:.1%} to {exact.high[-1]:.1%})")
        print(f"| {n_tokens} | {' | '.join(cells)} |")
        failed |= bool(
            (now[:-1] < LOW).any() or (now[:-1] > HIGH).any() or now[-1] > HIGHEST_OF_ANY
        )
    print("\n| p of 5 % for a step | held against neutral answers | simulated |\n|---|--:|--:|")
    for k, trait in enumerate(traits):
        neutral, simulated = steps(answers, k)
        print(f"| {trait} | {neutral:.1%} | {simulated:.1%} |")
    return failed


def shares(answers: Sequence[Float32], n_tokens: int) -> tuple[Float64, Float64, Float64]:
    """Mean shares [k + 1] of held-out answers of n tokens over the threshold for that length, over
    the one for whole answers, and with a token over that for their highest token."""
    found = []
    for fitted, new in splits(answers):
        baseline = Baseline.of(fitted)
        means = np.stack([one[:n_tokens].mean(axis=0) for one in new])
        tokens = np.stack([baseline.token_z(one[:n_tokens]).max(axis=0) for one in new])
        longest = max(LENGTHS)
        found.append(
            [
                over(baseline, baseline.response_z(means, n_tokens), n_tokens, "mean"),
                over(baseline, baseline.response_z(means, longest), longest, "mean"),
                over(baseline, tokens, n_tokens, "highest"),
            ]
        )
    return tuple(np.mean(found, axis=0))


def over(baseline: Baseline, z: Float64, n_tokens: int, what: What) -> Float64:
    """The share [k + 1] of rows of z [n, k] over the thresholds."""
    z = np.concatenate([z, z.max(axis=1, keepdims=True)], axis=1)
    return np.asarray((z > baseline.threshold(NOMINAL, n_tokens, what)).mean(axis=0))


def steps(answers: Sequence[Float32], k: int) -> tuple[float, float]:
    """The share of held-out answers with a step of p <= 5 %, by either null distribution."""
    found = []
    for fitted, new in splits(answers)[:N_STEPS]:
        null = NeutralSteps([one[:, k].astype(float) for one in fitted])
        for one in new:
            x = one[:, k].astype(float)
            changes = find_change_point(x, null=null), find_change_point(x)
            found.append([change is not None and change.p_value <= NOMINAL for change in changes])
    neutral, simulated = np.mean(found, axis=0)
    return float(neutral), float(simulated)


def splits(answers: Sequence[Float32]) -> list[tuple[list[Float32], list[Float32]]]:
    """Draws of N_BASELINE answers, and the others beside each."""
    rng, found = np.random.default_rng(0), []
    for _ in range(N_DRAWS):
        order = rng.permutation(len(answers))
        parts = order[:N_BASELINE], order[N_BASELINE:]
        found.append(tuple([answers[i] for i in part] for part in parts))
    return found  # type: ignore[return-value]


if __name__ == "__main__":
    main()
