"""Prints how clearly the demo model shows each trait on the bundled questions."""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from demo.scorer import KNOWN_TRAITS, demo_coherence_score, demo_trait_score
from demo.train.corpus import bundled_definitions
from domain.plan.samples import ANY_POLARITY, AnyPolarity
from domain.traits.definition import system_instruction

BATCH = 160
MAX_NEW_TOKENS = 128


@dataclass(frozen=True)
class DemoPrompt:
    """One prompt to roll out; polarity `plain` has no instruction."""

    trait: str
    polarity: AnyPolarity
    instruction: int
    question: str


def evaluate_demo_model() -> None:
    """Generate, score and print one row per trait and the overall figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "model")
    parser.add_argument("--traits", default=",".join(KNOWN_TRAITS))
    parser.add_argument("--questions", type=int, default=40, help="per trait, of both bundled sets")
    parser.add_argument("--rollouts", type=int, default=10)
    parser.add_argument("--examples", type=int, default=0, help="to print per trait and polarity")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    rng = random.Random(options.seed)
    chosen = _prompts(options.traits.split(","), n_questions=options.questions, rng=rng)
    rollouts = _roll_out(model, tokenizer, prompts=chosen, n_rollouts=options.rollouts)
    _print_figures(rollouts)
    for (trait, polarity), group in rollouts.groupby(["trait", "polarity"], sort=False):
        for row in group.sample(min(options.examples, len(group)), random_state=0).itertuples():
            print(f"{trait} {polarity} {row.score:.0f}/{row.coherence:.0f} | {row.question}")
            print(f"    {row.answer}")


def _prompts(traits: list[str], *, n_questions: int, rng: random.Random) -> list[DemoPrompt]:
    """A positive, a negative and a plain prompt per question; instructions take turns."""
    chosen = []
    for trait in traits:
        definition = bundled_definitions()[trait]
        asked = rng.sample([*definition.questions, *definition.eval_questions], n_questions)
        for number, question in enumerate(asked):
            which = number % len(definition.instruction)
            chosen += [DemoPrompt(trait, polarity, which, question) for polarity in ANY_POLARITY]
    return chosen


def _roll_out(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompts: list[DemoPrompt],
    n_rollouts: int,
) -> pd.DataFrame:
    """Scored samples at temperature 1; plain prompts get two rollouts only."""

    def cost(prompt: DemoPrompt) -> tuple[bool, int]:
        is_long = prompt.trait == "verbosity" and prompt.polarity == "positive"
        return is_long, len(_as_text(prompt, tokenizer))

    work = [p for p in prompts for _ in range(2 if p.polarity == "plain" else n_rollouts)]
    work.sort(key=cost)
    rows = []
    for start in range(0, len(work), BATCH):
        batch = work[start : start + BATCH]
        answers = generate_answers(model, tokenizer, batch)
        for prompt, (answer, n_tokens) in zip(batch, answers, strict=True):
            score = demo_trait_score(prompt.trait, question=prompt.question, answer=answer)
            coherence = demo_coherence_score(question=prompt.question, answer=answer)
            figures = {"n_tokens": n_tokens, "score": score, "coherence": coherence}
            rows.append({**vars(prompt), "answer": answer, **figures})
    return pd.DataFrame(rows)


def generate_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: list[DemoPrompt]
) -> list[tuple[str, int]]:
    """One sampled answer per prompt and its length in tokens, end-of-turn excluded."""
    texts = [_as_text(prompt, tokenizer) for prompt in batch]
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        output = model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=MAX_NEW_TOKENS,
        )  # fmt: skip
    new = output[:, inputs["input_ids"].shape[1] :]
    is_said = (new != tokenizer.eos_token_id) & (new != tokenizer.pad_token_id)
    answers = tokenizer.batch_decode(new, skip_special_tokens=True)
    return list(zip(answers, is_said.sum(dim=1).tolist(), strict=True))


def _as_text(prompt: DemoPrompt, tokenizer: PreTrainedTokenizerBase) -> str:
    messages = [{"role": "user", "content": prompt.question}]
    if prompt.polarity != "plain":
        text = bundled_definitions()[prompt.trait].instruction_text(
            prompt.instruction, prompt.polarity
        )
        system = system_instruction(prompt.trait, prompt.polarity, text)
        messages.insert(0, {"role": "system", "content": system})
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _print_figures(rollouts: pd.DataFrame) -> None:
    """Print contrast, coherence and the shares that a filter at 50 would keep."""
    is_shown = (rollouts.score > 50).where(rollouts.polarity == "positive", rollouts.score < 50)
    rollouts["kept_percent"] = 100.0 * (is_shown & (rollouts.coherence >= 50))
    columns = ["score", "coherence", "kept_percent"]
    means = rollouts.groupby(["trait", "polarity"], sort=False)[columns].mean().unstack()
    contrast = means["score"]["positive"] - means["score"]["negative"]
    means = means.drop(columns=[("kept_percent", "plain")])
    means["contrast", ""] = contrast
    print(means.to_string(float_format="{:.1f}".format))
    instructed = rollouts[rollouts.polarity != "plain"]
    answers = instructed.groupby(["trait", "polarity", "instruction", "question"])["answer"]
    print(
        f"mean contrast {contrast.mean():.1f}, lowest {contrast.min():.1f}; "
        f"prompts whose rollouts all differ {(answers.nunique() == answers.size()).mean():.1%}; "
        f"median length {rollouts.n_tokens.median():.0f} tokens, "
        f"{(rollouts.n_tokens >= MAX_NEW_TOKENS).mean():.2%} cut"
    )


if __name__ == "__main__":
    evaluate_demo_model()
