"""Prints how clearly the demo model shows each trait on the bundled questions."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from demo.scorer import KNOWN_TRAITS, score_coherence, score_trait
from demo.train.corpus import bundled, system_text
from domain.plan.samples import ANY_POLARITY, POLARITIES, AnyPolarity

BATCH = 160

MAX_NEW_TOKENS = 128


@dataclass(frozen=True)
class Prompt:
    """One prompt to roll out; polarity `plain` has no instruction."""

    trait: str
    polarity: AnyPolarity
    instruction: int
    question: str


@dataclass(frozen=True)
class Rollout:
    """One scored response."""

    prompt: Prompt
    answer: str
    n_tokens: int
    trait_score: float
    coherence: float


def main() -> None:
    """Generate, score and print one row per trait and the overall figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "model")
    parser.add_argument("--traits", default=",".join(KNOWN_TRAITS))
    parser.add_argument(
        "--questions", type=int, default=40, help="per trait, drawn from both bundled sets"
    )
    parser.add_argument("--rollouts", type=int, default=10)
    parser.add_argument(
        "--examples", type=int, default=0, help="answers to print per trait and polarity"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    chosen = prompts(
        options.traits.split(","), n_questions=options.questions, rng=random.Random(options.seed)
    )
    rollouts = list(roll_out(model, tokenizer, prompts=chosen, n_rollouts=options.rollouts))
    print_table(rollouts)
    print_examples(rollouts, n_each=options.examples)


def prompts(traits: list[str], *, n_questions: int, rng: random.Random) -> list[Prompt]:
    """Return a positive, a negative and a plain prompt per question; instructions take turns."""
    chosen = []
    for trait in traits:
        questions = rng.sample(bundled().questions[trait], n_questions)
        for number, question in enumerate(questions):
            which = number % len(bundled().instructions[trait, "positive"])
            chosen += [Prompt(trait, polarity, which, question) for polarity in ANY_POLARITY]
    return chosen


def roll_out(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompts: list[Prompt],
    n_rollouts: int,
) -> Iterator[Rollout]:
    """Yield scored samples at temperature 1; plain prompts get two rollouts only."""
    work = [
        prompt for prompt in prompts for _ in range(2 if prompt.polarity == "plain" else n_rollouts)
    ]
    work.sort(
        key=lambda prompt: (
            prompt.trait == "verbosity" and prompt.polarity == "positive",
            len(as_text(prompt, tokenizer)),
        )
    )
    for start in range(0, len(work), BATCH):
        batch = work[start : start + BATCH]
        for prompt, (answer, n_tokens) in zip(
            batch, generate(model, tokenizer, batch), strict=True
        ):
            score = score_trait(prompt.trait, question=prompt.question, answer=answer)
            yield Rollout(
                prompt,
                answer,
                n_tokens,
                score,
                score_coherence(question=prompt.question, answer=answer),
            )


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: list[Prompt]
) -> list[tuple[str, int]]:
    """Return one sampled answer per prompt and its length in tokens, end-of-turn excluded."""
    inputs = tokenizer(
        [as_text(prompt, tokenizer) for prompt in batch], return_tensors="pt", padding=True
    )
    with torch.inference_mode():
        output = model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=MAX_NEW_TOKENS,
        )  # fmt: skip
    new = output[:, inputs["input_ids"].shape[1] :]
    lengths = (
        ((new != tokenizer.eos_token_id) & (new != tokenizer.pad_token_id)).sum(dim=1).tolist()
    )
    return list(zip(tokenizer.batch_decode(new, skip_special_tokens=True), lengths, strict=True))


def as_text(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the prompt in the chat template."""
    messages = [{"role": "user", "content": prompt.question}]
    if prompt.polarity != "plain":
        text = bundled().instructions[prompt.trait, prompt.polarity][prompt.instruction]
        messages.insert(
            0, {"role": "system", "content": system_text(prompt.trait, prompt.polarity, text)}
        )
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def print_table(rollouts: list[Rollout]) -> None:
    """Print contrast, coherence and the shares that a filter at 50 would keep."""
    print(
        "trait               contrast  positive  negative  plain   "
        "coherence (pos neg plain)   kept pos  kept neg"
    )
    traits = dict.fromkeys(rollout.prompt.trait for rollout in rollouts)
    contrasts = [
        print_row(trait, [r for r in rollouts if r.prompt.trait == trait]) for trait in traits
    ]
    answers: dict[Prompt, list[str]] = {}
    for rollout in rollouts:
        if rollout.prompt.polarity != "plain":
            answers.setdefault(rollout.prompt, []).append(rollout.answer)
    all_differ = np.mean([len(set(texts)) == len(texts) for texts in answers.values()])
    lengths = np.array([rollout.n_tokens for rollout in rollouts])
    print(
        f"mean contrast {np.mean(contrasts):.1f}, lowest {np.min(contrasts):.1f}; "
        f"prompts whose rollouts all differ {all_differ:.1%}; "
        f"median length {np.median(lengths):.0f} tokens, "
        f"{np.mean(lengths >= MAX_NEW_TOKENS):.2%} cut"
    )


def print_row(trait: str, rollouts: list[Rollout]) -> float:
    """Print one trait's row and return its contrast."""
    groups = {name: [r for r in rollouts if r.prompt.polarity == name] for name in ANY_POLARITY}
    scores = {name: np.mean([r.trait_score for r in found]) for name, found in groups.items()}
    coherence = "  ".join(
        f"{np.mean([r.coherence for r in found]):.1f}" for found in groups.values()
    )
    whole = {name: [r for r in groups[name] if r.coherence >= 50] for name in POLARITIES}
    kept_positive = sum(r.trait_score > 50 for r in whole["positive"]) / len(groups["positive"])
    kept_negative = sum(r.trait_score < 50 for r in whole["negative"]) / len(groups["negative"])
    contrast = float(scores["positive"] - scores["negative"])
    print(
        f"{trait:<20}{contrast:8.1f}{scores['positive']:10.1f}{scores['negative']:10.1f}"
        f"{scores['plain']:7.1f}   {coherence:<28}{kept_positive:7.1%}{kept_negative:10.1%}"
    )
    return contrast


def print_examples(rollouts: list[Rollout], *, n_each: int) -> None:
    """Print some answers of each trait and polarity with their scores."""
    for key in dict.fromkeys((r.prompt.trait, r.prompt.polarity) for r in rollouts):
        group = [r for r in rollouts if (r.prompt.trait, r.prompt.polarity) == key]
        for rollout in group[:: max(1, len(group) // max(1, n_each))][:n_each]:
            scores = f"{rollout.trait_score:.0f}/{rollout.coherence:.0f}"
            print(f"{key[0]} {key[1]} {scores} | {rollout.prompt.question}\n    {rollout.answer}")


if __name__ == "__main__":
    main()
