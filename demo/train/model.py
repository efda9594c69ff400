"""Trains the demo model and its tokenizer on generated text: `python -m demo.train.model`.

A model this small does not follow its own mean differences by itself: much of such a vector is
word identity, and the answer crumbles. So it practices: some samples have no instruction, and
the model's own mean difference of that trait, as it then stands, is added instead.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.scorer import KNOWN_TRAITS
from demo.train.batches import Batch, batches, build_tokenizer
from demo.train.corpus import Mix, bundled_definitions, draw_dialogue
from domain.plan.samples import POLARITIES

ROW_LENGTH, N_ROWS = 256, 8

# Share of the steps over which the learning rate rises.
WARM_UP = 0.03

# Batches looked at before the first step, so that there are trait directions to follow.
N_LOOKED_AT = 60

# Largest noise as a share of the mean residual norm.
LARGEST_NOISE = 0.5

# In multiples of the mean difference; below the first an answer would have no reason to change.
COEFFICIENTS = (0.8, 2.6)

# How much of the running sums is left after one more batch: a memory of about a hundred batches.
MEMORY = 0.99


def train_demo_model() -> None:
    """Train and save; prints the loss now and then."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)
    if options.start_from is None:
        texts = [text for _ in range(options.tokenizer_samples) for text in _texts(rng)]
        tokenizer = build_tokenizer(texts, vocabulary=2048, max_length=512)
        model = _build_model(tokenizer)
    else:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(options.start_from)
        model = LlamaForCausalLM.from_pretrained(options.start_from, dtype=torch.float32).train()
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters")
    stream = batches(tokenizer, rng=rng, mix=Mix(), n_rows=N_ROWS, row_length=ROW_LENGTH)
    train(model, tokenizer, stream=stream, options=options)


def _build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained model of about two million parameters."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=448,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=24,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    stream: Iterator[Batch],
    options: argparse.Namespace,
) -> None:
    """Run the optimizer and save every `save_every` steps and at the end."""
    optimizers = _build_optimizers(model, rate=options.rate)
    generator = torch.Generator().manual_seed(options.seed)
    means = TraitMeans.empty(model)
    with torch.no_grad():
        for _ in range(N_LOOKED_AT):
            _batch_loss(model, next(stream), means=means, generator=generator)
    began, shown = time.monotonic(), 0.0
    for step in range(1, options.steps + 1):
        loss, response_loss = _batch_loss(model, next(stream), means=means, generator=generator)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = options.rate * _rate_share(step, options.steps, options.decay_from)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        shown = response_loss if step == 1 else 0.97 * shown + 0.03 * response_loss
        if step % 50 == 0 or step == 1:
            took = time.monotonic() - began
            print(f"step {step}: response loss {shown:.3f}, {took:.0f} s", flush=True)
        if step % options.save_every == 0 or step == options.steps:
            _save(model, tokenizer, folder=options.output)


def _build_optimizers(model: LlamaForCausalLM, *, rate: float) -> list[torch.optim.Optimizer]:
    """Muon, which needs fewer tokens, for the blocks' matrices, and AdamW for the rest."""
    inside = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    gains = [weight for weight in model.parameters() if weight.ndim != 2]
    embedding = model.get_input_embeddings().weight
    adam_groups = [
        {"params": [embedding], "weight_decay": 0.05},
        {"params": gains, "weight_decay": 0.0},
    ]
    return [
        torch.optim.Muon(inside, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(adam_groups, lr=rate, betas=(0.9, 0.98)),
    ]


def _batch_loss(
    model: LlamaForCausalLM, batch: Batch, *, means: TraitMeans, generator: torch.Generator
) -> tuple[torch.Tensor, float]:
    """The weighted next-token loss and the plain mean loss of the response tokens."""
    with means.watching(model, batch), _intervening(model, batch, means=means, generator=generator):
        logits = model(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            use_cache=False,
        ).logits
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none"
    )
    weights = batch.weights[:, 1:].flatten()
    in_response = weights == 1.0
    return (losses * weights).sum() / weights.sum(), float(losses[in_response].mean().detach())


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, folder: Path) -> None:
    stored = copy.deepcopy(model).to(torch.bfloat16)
    stored.generation_config.update(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    stored.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _rate_share(step: int, n_steps: int, decay_from: float) -> float:
    done = step / n_steps
    if done < WARM_UP:
        return done / WARM_UP
    return 1.0 if done < decay_from else max(0.02, (1 - done) / (1 - decay_from))


def _texts(rng: random.Random) -> list[str]:
    drawn = draw_dialogue(rng, mix=Mix())
    definition, polarity = bundled_definitions()[rng.choice(KNOWN_TRAITS)], rng.choice(POLARITIES)
    which = rng.randrange(len(definition.instruction))
    bundled_text = definition.instruction_text(which, polarity)
    return [drawn.question, drawn.response, drawn.system or bundled_text]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "model")
    parser.add_argument("--start-from", type=Path, help="folder of a trained model to go on from")
    parser.add_argument("--decay-from", type=float, default=0.6, help="share of steps at full rate")
    parser.add_argument("--steps", type=int, default=2800)
    parser.add_argument("--save-every", type=int, default=400, help="steps between checkpoints")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokenizer-samples", type=int, default=20000)
    return parser


@dataclass
class TraitMeans:
    """Sums of response activations, [layer, trait, polarity, d_model], counts [trait, polarity].

    Layer l is the output of block l, counted from 0 here; polarity 0 is positive, 1 negative.
    """

    sums: torch.Tensor
    counts: torch.Tensor

    @classmethod
    def empty(cls, model: LlamaForCausalLM) -> TraitMeans:
        """Sums of nothing."""
        sides = (len(KNOWN_TRAITS), 2)
        shape = (len(model.model.layers), *sides, model.config.hidden_size)
        return cls(torch.zeros(shape), torch.zeros(sides))

    def differences(self, layer: int) -> torch.Tensor:
        """Positive minus negative mean per trait, [trait, d_model]."""
        means = self.sums[layer] / self.counts.clamp(min=1.0)[..., None]
        return means[:, 0] - means[:, 1]

    @contextmanager
    def watching(self, model: LlamaForCausalLM, batch: Batch) -> Iterator[None]:
        """Within the context a forward pass adds its clean instructed responses to the sums."""
        kind = batch.kinds[batch.segments]  # [row, token], trait * 2 + polarity, or -1
        used = (kind >= 0) & batch.in_response
        self.sums *= MEMORY
        self.counts *= MEMORY
        self.counts.view(-1).index_add_(0, kind[used], torch.ones(int(used.sum())))

        def watch(layer: int, output: torch.Tensor) -> None:
            flat = self.sums[layer].view(-1, self.sums.shape[-1])
            flat.index_add_(0, kind[used], output.detach()[used])

        with ExitStack() as stack:
            for layer, block in enumerate(model.model.layers):
                handle = block.register_forward_hook(
                    lambda _module, _inputs, output, layer=layer: watch(layer, output)
                )
                stack.callback(handle.remove)
            yield


@contextmanager
def _intervening(
    model: LlamaForCausalLM, batch: Batch, *, means: TraitMeans, generator: torch.Generator
) -> Iterator[None]:
    """Within the context one random middle layer adds each sample's noise or trait direction."""
    layer = int(torch.randint(1, len(model.model.layers) - 1, (), generator=generator))
    n_samples, width = len(batch.kinds), model.config.hidden_size
    noise = torch.randn(n_samples, width, generator=generator)
    noise = torch.nn.functional.normalize(noise, dim=-1)
    noise *= torch.rand(n_samples, 1, generator=generator) * LARGEST_NOISE
    lowest, highest = COEFFICIENTS
    size = lowest + torch.rand(n_samples, generator=generator) * (highest - lowest)
    trait, sign = batch.steered.clamp(min=0) // 2, 1.0 - 2.0 * (batch.steered.clamp(min=0) % 2)
    steering = means.differences(layer)[trait] * (size * sign * (batch.steered >= 0))[:, None]
    from_start = torch.rand(n_samples, generator=generator) < 0.5
    here = from_start[batch.segments] | batch.in_answer_turn

    def add(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        scale = output.detach().norm(dim=-1).mean()
        noisy = (noise * batch.noisy[:, None] * scale)[batch.segments]
        changed: torch.Tensor = output + noisy + steering[batch.segments] * here[..., None]
        return changed

    handle = model.model.layers[layer].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


if __name__ == "__main__":
    train_demo_model()
