"""How likely a model finds given texts, and how a push of its residual stream changes that.

At strength 0 exactly and for all layers at once, by one forward and one backward pass; at chosen
strengths by a forward pass each, which also tells how far the push moves every next-token
distribution.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from traitlens.arrays import Float32, Float64
from traitlens.capture.blocks import decoder_blocks
from traitlens.capture.hooks import tapped
from workers.engine.forward import steered
from workers.engine.generation import Steering
from workers.engine.teacher_forced import PaddedTexts, text_batches
from workers.models.device import free_bytes
from workers.models.model import LoadedModel

# Padded tokens of one pass. With more, a CPU's caches lose what is read again; a GPU gains nothing.
BATCH_TOKENS_CPU, BATCH_TOKENS_GPU = 512, 4096

# What a batch's tensors may take of the memory that is free, and on a CPU at all: there one text of
# a model that fills it is as fast as several.
MEMORY_SHARE = 0.25
BATCH_BYTES_CPU = 1 << 29

# Numbers kept for the backward pass by token, block and unit of width: attention and feed-forward
# of the families people run take 20 to 30.
KEPT_BY_BLOCK = 30

# Distributions over the vocabulary that are held at once, in float32: logits, log p, and p.
KEPT_BY_VOCABULARY = 4

# Lower log-probabilities count as this one: those of tokens that a model rules out are -inf.
LOWEST_LOG_P = -1e4

# A pass that leaves blocks out has to give the log-probabilities of a whole one, this near.
RESUMED_WITHIN = 1e-5


def text_gradients(
    model: LoadedModel, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]]
) -> tuple[Float64, Float32]:
    """(mean log p per response token [N], its derivative [N, L+1, d_model]) of N responses.

    Row l of a derivative is with respect to a vector added at layer l to every token of prompt and
    response, so its scalar product with a direction is what a small push along it changes, in nats
    per token. No response may be empty.
    """
    n_layers, width = model.n_layers + 1, model.d_model
    log_p = np.zeros(len(prompt_ids))
    gradients = np.zeros((len(prompt_ids), n_layers, width), np.float32)
    by_token = model.dtype.itemsize * KEPT_BY_BLOCK * model.n_layers * width
    for batch, texts in text_batches(prompt_ids, response_ids, most=_most_tokens(model, by_token)):
        with torch.inference_mode(False), torch.enable_grad():
            real = (texts.prompt + texts.response).unsqueeze(-1)
            pushes = [
                torch.zeros(len(batch), 1, width, device=model.device, requires_grad=True)
                for _ in range(n_layers)
            ]

            def push(
                layer: int, states: Tensor, by_layer: list[Tensor] = pushes, real: Tensor = real
            ) -> Tensor:
                added = by_layer[layer].to(states.device) * real.to(states.device)
                return states + added.to(states.dtype)

            with tapped(decoder_blocks(model.model), push):
                found = _means(_log_p(model, texts)[0], texts)
            found.sum().backward()
        log_p[batch] = found.detach().double().cpu().numpy()
        for layer, one in enumerate(pushes):
            assert one.grad is not None
            gradients[batch, layer] = one.grad[:, 0].float().cpu().numpy()
    return log_p, gradients


@torch.inference_mode()
def pushed_texts(
    model: LoadedModel,
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[int]],
    pushes: Sequence[Steering],
) -> tuple[Float64, Float64]:
    """(mean log p per response token, damage) of N responses, both [1 + pushes, N], row 0 being
    without a push.

    Damage is the mean over response tokens of KL(without || with the push) between the next-token
    distributions, in nats. No response may be empty. Blocks below a push are not computed again
    where leaving them out changes nothing.
    """
    log_p = np.zeros((1 + len(pushes), len(prompt_ids)))
    damage = np.zeros_like(log_p)
    lowest = [min((one.layer for one in push.interventions), default=0) for push in pushes]
    if not _can_resume(model, prompt_ids[0][:4] or response_ids[0][:4], sorted(set(lowest))):
        lowest = [0] * len(pushes)
    for batch, texts in text_batches(prompt_ids, response_ids, most=_most_tokens(model, 0)):
        starts = texts.prompt.sum(-1).to(model.device, torch.long)
        with _outputs_kept(model, lowest) as outputs:
            chosen, plain = _log_p(model, texts)
        log_p[0, batch] = _means(chosen, texts).double().cpu().numpy()
        p = plain.exp()
        expected = _expected(p, plain)
        for row, (layer, push) in enumerate(zip(lowest, pushes, strict=True), start=1):
            # resumed first: what a block gives is pushed by its hooks
            with _resumed(model, layer, outputs), steered(model.model, push, starts):
                chosen, pushed = _log_p(model, texts)
            log_p[row, batch] = _means(chosen, texts).double().cpu().numpy()
            apart = (expected - _expected(p, pushed)).clamp(min=0)
            damage[row, batch] = _means(apart, texts).double().cpu().numpy()
    return log_p, damage


def _expected(p: Tensor, log_p: Tensor) -> Tensor:
    """The expectation [batch, columns] of log_p [batch, columns, vocabulary] under p."""
    # what no distribution allows counts nothing, and what one allows alone a great deal
    return torch.einsum("bcv,bcv->bc", p, log_p.clamp_(min=LOWEST_LOG_P))


@torch.inference_mode()
def likeliest_tokens(
    model: LoadedModel,
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    n: int,
    *,
    steering: Steering | None = None,
) -> list[list[tuple[int, float]]]:
    """At each token of one response the `n` likeliest token ids in its place, the likeliest first,
    with their probabilities at temperature 1."""
    if not response_ids:
        return []
    ((_, texts),) = text_batches([prompt_ids], [response_ids], most=1)
    starts = texts.prompt.sum(-1).to(model.device, torch.long)
    with steered(model.model, steering, starts):
        every = _log_p(model, texts)[1][0]
    found = every.exp().topk(min(n, every.shape[-1]), dim=-1)
    ids, shares = found.indices.tolist(), found.values.tolist()
    return [list(zip(*place, strict=True)) for place in zip(ids, shares, strict=True)]


@contextmanager
def _outputs_kept(model: LoadedModel, layers: Sequence[int]) -> Iterator[dict[int, Any]]:
    """What the blocks before some layers give in the forward pass inside the context, by layer."""
    kept: dict[int, Any] = {}
    blocks = decoder_blocks(model.model)
    with ExitStack() as hooks:
        for layer in {*layers} - {0}:

            def keep(_: nn.Module, __: object, output: object, layer: int = layer) -> None:
                kept[layer] = output

            hooks.callback(blocks[layer - 1].register_forward_hook(keep).remove)
        yield kept


@contextmanager
def _resumed(model: LoadedModel, layer: int, outputs: Mapping[int, Any]) -> Iterator[None]:
    """Have forward passes of the same ids begin at a layer, with the states that a pass before had
    there."""
    blocks = list(decoder_blocks(model.model))[:layer]
    own = [vars(block).get("forward") for block in blocks]
    for block in blocks:
        # what the last of them gives is all that those after it see
        vars(block)["forward"] = lambda *_, **__: outputs[layer]
    try:
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            del vars(block)["forward"]
            if forward is not None:
                vars(block)["forward"] = forward


def _can_resume(model: LoadedModel, ids: Sequence[int], layers: Sequence[int]) -> bool:
    """Whether passes resumed at these layers give what whole ones do: blocks of some families leave
    more to later ones than the states."""
    ((_, texts),) = text_batches([ids], [ids], most=1)
    with _outputs_kept(model, layers) as outputs:
        whole = _log_p(model, texts)[1]
    for layer in layers:
        # what a family's blocks say when a part is not there is theirs to choose
        try:
            with _resumed(model, layer, outputs):
                resumed = _log_p(model, texts)[1]
        except Exception:
            return False
        if not torch.allclose(resumed, whole, rtol=RESUMED_WITHIN, atol=RESUMED_WITHIN):
            return False
    return True


def _log_p(model: LoadedModel, texts: PaddedTexts) -> tuple[Tensor, Tensor]:
    """(log p of the tokens that follow, log p of every token) of the columns from the shortest
    prompt's last on: [batch, columns] and [batch, columns, vocabulary], float32."""
    ids = texts.ids.to(model.device)
    first = _first_column(texts)
    columns = torch.arange(first, ids.shape[1] - 1, device=model.device)
    is_choosy = "logits_to_keep" in inspect.signature(model.model.forward).parameters
    output = model.model(
        input_ids=ids,
        attention_mask=(texts.prompt + texts.response).to(model.device, torch.long),
        use_cache=False,
        **({"logits_to_keep": columns} if is_choosy else {}),
    )
    logits = output.logits if is_choosy else output.logits[:, columns]
    every = torch.log_softmax(logits.float(), dim=-1)
    following = ids[:, first + 1 :].to(every.device).unsqueeze(-1)
    return every.gather(-1, following).squeeze(-1), every


def _means(values: Tensor, texts: PaddedTexts) -> Tensor:
    """Means over response tokens of values [batch, columns] as `_log_p` gives them: [batch]."""
    counted = texts.response[:, _first_column(texts) + 1 :].to(values.device)
    return (values * counted).sum(-1) / counted.sum(-1)


def _first_column(texts: PaddedTexts) -> int:
    return int(texts.prompt.sum(-1).min()) - 1


def _most_tokens(model: LoadedModel, by_token: int) -> int:
    """Tokens of a batch that memory holds, when each takes so many bytes beside its logits."""
    vocabulary = model.model.config.get_text_config().vocab_size
    by_token += KEPT_BY_VOCABULARY * torch.float32.itemsize * vocabulary
    held = int(MEMORY_SHARE * free_bytes(model.device))
    if model.device.type == "cpu":
        return max(1, min(BATCH_TOKENS_CPU, min(held, BATCH_BYTES_CPU) // by_token))
    return max(1, min(BATCH_TOKENS_GPU, held // by_token))
