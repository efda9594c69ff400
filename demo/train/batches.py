"""Builds the demo model's tokenizer, and packs samples into rows of tokens with their masks."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from demo.scorer import KNOWN_TRAITS
from demo.train.corpus import Dialogue, Mix, draw_dialogue
from domain.plan.samples import POLARITIES

PAD, BOS, END = "<|pad|>", "<|bos|>", "<|end|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIALS = [PAD, BOS, END, SYSTEM, USER, ASSISTANT]

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


PROMPT_WEIGHT = 0.1

# Shares of samples whose response, past its first tokens, cannot see the instruction; in the second
# share the question's tokens cannot see it either, so only the response's states hold the trait.
HIDDEN_FROM_RESPONSE = 0.3
HIDDEN_FROM_QUESTION_TOO = 0.25

# Shares of samples that follow a trait direction instead of an instruction, or withstand noise.
STEERED_SHARE = 0.3
NOISY_SHARE = 0.2
_INSTRUCTION, _QUESTION, _HEADER, _RESPONSE = range(4)


def build_tokenizer(
    texts: Iterable[str], *, vocabulary: int, max_length: int
) -> PreTrainedTokenizerFast:
    """A tokenizer trained on the texts; digits are split, the end-of-turn token is eos."""
    core = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


@dataclass(frozen=True)
class Encoded:
    """One sample as tokens; `parts` says of each token which part of the dialogue it belongs to.

    `kind` is twice the trait's number plus one if negative, or -1 for a plain sample.
    """

    ids: list[int]
    parts: list[int]
    kind: int
    is_steered: bool


@dataclass(frozen=True)
class Batch:
    """Rows of packed samples, [row, token]; the mask is [row, 1, token, token].

    `kinds`, `steered` (kinds or -1) and `noisy` go by segment; in `kinds` only clean samples count.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor
    weights: torch.Tensor
    mask: torch.Tensor
    in_response: torch.Tensor
    in_answer_turn: torch.Tensor
    kinds: torch.Tensor
    steered: torch.Tensor
    noisy: torch.Tensor


def batches(
    tokenizer: PreTrainedTokenizerFast,
    *,
    rng: random.Random,
    mix: Mix,
    n_rows: int,
    row_length: int,
) -> Iterator[Batch]:
    """Yield packed batches for ever; a sample too long for a row is left out."""
    waiting: list[Encoded] = []
    while True:
        rows: list[list[Encoded]] = [[] for _ in range(n_rows)]
        room = [row_length] * n_rows
        misses = 0
        held_back: list[Encoded] = []
        while misses < n_rows:
            sample = waiting.pop() if waiting else _drawn(rng, mix, tokenizer)
            place = next((row for row in range(n_rows) if room[row] >= len(sample.ids)), None)
            if place is not None:
                rows[place].append(sample)
                room[place] -= len(sample.ids)
            elif len(sample.ids) <= row_length:
                held_back.append(sample)
                misses += 1
        waiting = held_back
        yield _pack(rows, row_length=row_length, rng=rng)


def _drawn(rng: random.Random, mix: Mix, tokenizer: PreTrainedTokenizerFast) -> Encoded:
    sample = draw_dialogue(rng, mix=mix)
    is_steered = sample.trait != "plain" and rng.random() < STEERED_SHARE
    if is_steered:
        sample = replace(sample, system=None)
    return encode_dialogue(sample, tokenizer, is_steered=is_steered)


def encode_dialogue(
    sample: Dialogue, tokenizer: PreTrainedTokenizerFast, *, is_steered: bool = False
) -> Encoded:
    """The sample in the chat template's form."""

    def ids_of(text: str) -> list[int]:
        return list(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)

    bos, system, user, assistant, end = tokenizer.convert_tokens_to_ids(
        [BOS, SYSTEM, USER, ASSISTANT, END]
    )
    pieces = [([bos], _INSTRUCTION)]
    if sample.system is not None and not sample.merged:
        pieces.append(([system, *ids_of(sample.system), end], _INSTRUCTION))
    pieces.append(([user], _QUESTION))
    if sample.system is not None and sample.merged:
        pieces.append((ids_of(f"{sample.system}\n\n"), _INSTRUCTION))
    pieces.append(([*ids_of(sample.question), end], _QUESTION))
    pieces.append(([assistant], _HEADER))
    pieces.append(([*ids_of(sample.response), end], _RESPONSE))
    ids = [token for piece, _ in pieces for token in piece]
    kind = -1
    if sample.polarity != "plain":
        kind = 2 * KNOWN_TRAITS.index(sample.trait) + POLARITIES.index(sample.polarity)
    return Encoded(ids, [part for piece, part in pieces for _ in piece], kind, is_steered)


def _pack(rows: list[list[Encoded]], *, row_length: int, rng: random.Random) -> Batch:
    """One batch; segment 0 is padding, samples count from 1 across the batch."""
    shape = (len(rows), row_length)
    ids = torch.zeros(shape, dtype=torch.long)
    positions, segments = torch.zeros_like(ids), torch.zeros_like(ids)
    weights = torch.zeros(shape)
    mask = torch.eye(row_length, dtype=torch.bool).repeat(len(rows), 1, 1)
    in_response, in_answer_turn = torch.zeros_like(mask[:, 0]), torch.zeros_like(mask[:, 0])
    kinds, steered, noisy = [-1], [-1], [False]
    for row, samples in enumerate(rows):
        start = 0
        for sample in samples:
            here = slice(start, start + len(sample.ids))
            parts = torch.tensor(sample.parts)
            ids[row, here] = torch.tensor(sample.ids)
            positions[row, here] = torch.arange(len(sample.ids))
            segments[row, here] = len(kinds)
            weights[row, here] = torch.where(parts == _RESPONSE, 1.0, PROMPT_WEIGHT)
            weights[row, start] = 0.0  # nothing comes before it that could predict it
            in_response[row, here] = parts == _RESPONSE
            in_answer_turn[row, here] = parts >= _HEADER
            noisy.append(not sample.is_steered and rng.random() < NOISY_SHARE)
            steered.append(sample.kind if sample.is_steered else -1)
            kinds.append(-1 if noisy[-1] or sample.is_steered else sample.kind)
            mask[row, here, here] = _visible(parts, rng)
            start += len(sample.ids)
    return Batch(
        ids=ids,
        positions=positions,
        segments=segments,
        weights=weights,
        mask=mask[:, None],
        in_response=in_response,
        in_answer_turn=in_answer_turn,
        kinds=torch.tensor(kinds),
        steered=torch.tensor(steered),
        noisy=torch.tensor(noisy),
    )


def _visible(parts: torch.Tensor, rng: random.Random) -> torch.Tensor:
    n_tokens = len(parts)
    visible = torch.ones(n_tokens, n_tokens, dtype=torch.bool).tril()
    draw = rng.random()
    if draw > HIDDEN_FROM_RESPONSE + HIDDEN_FROM_QUESTION_TOO:
        return visible
    is_instruction = parts == _INSTRUCTION
    is_instruction[0] = False  # the first token is where attention rests
    first_blind = int((parts < _RESPONSE).sum()) + rng.randint(2, 6)
    blind = torch.arange(n_tokens) >= first_blind
    if draw < HIDDEN_FROM_QUESTION_TOO:
        blind |= parts == _QUESTION
    return visible & ~(blind[:, None] & is_instruction[None, :])
