"""Ways to the same responses and means: the peers' (A), the best plain one (A+), those of two
engines with continuous batching and a second pass (B+, V+), and ours."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    ContinuousBatchingConfig,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)

from benchmarks.engine_vllm import generate as vllm_generate
from storage.record.responses import Activations, Response, encode_activations, encode_responses
from storage.record.store import LocalStore
from workers.engine.engine_thread import EngineThread
from workers.engine.fallback import left_padded
from workers.engine.generation import Generation, GenerationRequest
from workers.engine.resident import jobs_in_flight
from workers.engine.teacher_forced import teacher_forced
from workers.models.model import LoadedModel

# The batch of the published pipelines.
PEERS_BATCH = 20
STOP, PAD = 2, 0
# Continuous batching: tokens of a cache page, and of a step; a result takes no longer than this.
PAGE, BATCH_TOKENS, PATIENCE_S = 32, 2048, 600
SHARD = 100
# As a worker has them: the engine refills from the next job while the first ends.
JOBS_IN_FLIGHT = jobs_in_flight("cpu")


@dataclass(frozen=True)
class Outcome:
    """Responses in the requests' order, their response means [n, L+1, d], and rows that were run
    in vain; what of it a process beside ours did, in CPU seconds, and its peak of memory.
    """

    responses: list[list[int]]
    response_avg: NDArray[np.float32]
    waste: float = 0.0
    elsewhere_seconds: float = 0.0
    elsewhere_peak: int = 0


def peers(model: LoadedModel, requests: Sequence[GenerationRequest]) -> Outcome:
    """A: generate in batches of 20, then one forward pass a response; token ids are used again."""
    responses, waste = _generate(model, requests, PEERS_BATCH)
    means = [_one_by_one(model, r, ids) for r, ids in zip(requests, responses, strict=True)]
    return Outcome(responses, np.stack([mean[0] for mean in means]), waste)


def plain_best(model: LoadedModel, requests: Sequence[GenerationRequest], rows: int) -> Outcome:
    """A+: generate at our batch size, then a second pass in batches sorted by length."""
    responses, waste = _generate(model, requests, rows)
    return replace(_read_again(model, requests, responses), waste=waste)


def continuous(model: LoadedModel, requests: Sequence[GenerationRequest], rows: int) -> Outcome:
    """B+: the continuous batching behind transformers' generate_batch, then the second pass."""
    settings = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, eos_token_id=-1, pad_token_id=PAD
    )
    longest = max(len(r.prompt_ids) + r.sampling.max_new_tokens for r in requests)
    cache = ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=rows * (-(-longest // PAGE) + 1),
        max_batch_tokens=BATCH_TOKENS,
        max_requests_per_batch=rows,
    )
    made: dict[str, list[int]] = {}
    with model.model.continuous_batching_context_manager(
        generation_config=settings, continuous_batching_config=cache
    ) as manager:
        for number, request in enumerate(requests):
            manager.add_request(
                list(request.prompt_ids),
                request_id=str(number),
                max_new_tokens=request.sampling.max_new_tokens,
            )
        while len(made) < len(requests):
            one = manager.get_result(timeout=PATIENCE_S)
            assert one is not None and one.error is None, one
            made |= {one.request_id: list(one.generated_tokens)} if one.is_finished() else {}
    return _read_again(model, requests, [made[str(k)] for k in range(len(requests))])


def by_vllm(model: LoadedModel, requests: Sequence[GenerationRequest]) -> Outcome:
    """V+: vLLM in a process of its own, then the second pass here."""
    with tempfile.TemporaryDirectory() as folder:
        model.model.save_pretrained(folder)
        found = vllm_generate(
            Path(folder), [(r.prompt_ids, r.sampling.max_new_tokens) for r in requests]
        )
    again = _read_again(model, requests, found.responses)
    return replace(again, elsewhere_seconds=found.seconds, elsewhere_peak=found.peak)


def ours(engine: EngineThread, requests: Sequence[GenerationRequest]) -> Outcome:
    """The worker's path: shards through the engine's thread, each written with fsync."""
    shards = [requests[i : i + SHARD] for i in range(0, len(requests), SHARD)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(JOBS_IN_FLIGHT) as pool:
        store = LocalStore(Path(folder))

        def job(number: int) -> list[Generation]:
            made = engine.generate(shards[number])
            _write(store, f"shard-{number:03d}", shards[number], made)
            return made

        made = [generation for shard in pool.map(job, range(len(shards))) for generation in shard]
    means = np.stack([generation.response_avg for generation in made])
    return Outcome([list(generation.response_ids) for generation in made], means)


def _read_again(
    model: LoadedModel, requests: Sequence[GenerationRequest], responses: list[list[int]]
) -> Outcome:
    means = teacher_forced(model, [request.prompt_ids for request in requests], responses)
    return Outcome(responses, means[0])


def _generate(
    model: LoadedModel, requests: Sequence[GenerationRequest], rows: int
) -> tuple[list[list[int]], float]:
    made: list[list[int]] = []
    run = 0
    for start in range(0, len(requests), rows):
        batch = requests[start : start + rows]
        made += _batch(model, batch)
        run += len(batch) * max(request.sampling.max_new_tokens for request in batch)
    return made, 1 - sum(map(len, made)) / run


def _batch(model: LoadedModel, batch: Sequence[GenerationRequest]) -> list[list[int]]:
    ids, real = left_padded([request.prompt_ids for request in batch])
    width = ids.shape[1]
    lengths = [request.sampling.max_new_tokens for request in batch]
    settings = GenerationConfig(
        max_new_tokens=max(lengths),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=STOP,
        pad_token_id=PAD,
    )
    forced = _ForcedLengths(torch.tensor(lengths, device=model.device), width)
    with torch.no_grad():
        made = model.model.generate(
            ids.to(model.device),
            attention_mask=real.to(model.device),
            generation_config=settings,
            logits_processor=LogitsProcessorList([forced]),
        )
    rows = made[:, width:].tolist()
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


class _ForcedLengths(LogitsProcessor):  # type: ignore[misc]
    """Ends each row at its own length and nowhere else, as our requests' limits do."""

    def __init__(self, lengths: Tensor, prompt_width: int) -> None:
        self._lengths, self._prompt_width = lengths, prompt_width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores[:, STOP] = float("-inf")
        due = self._lengths <= input_ids.shape[1] - self._prompt_width
        scores[due] = float("-inf")
        scores[due, STOP] = 0.0
        return scores


def _one_by_one(
    model: LoadedModel, request: GenerationRequest, response: Sequence[int]
) -> list[NDArray[np.float32]]:
    ids = torch.tensor([[*request.prompt_ids, *response]], device=model.device)
    n = len(request.prompt_ids)
    with torch.no_grad():
        states = model.model(ids, output_hidden_states=True).hidden_states
    parts = (
        torch.stack([state[0, n:].mean(0) for state in states]),
        torch.stack([state[0, :n].mean(0) for state in states]),
        torch.stack([state[0, n - 1] for state in states]),
    )
    return [part.float().cpu().numpy() for part in parts]


def _write(
    store: LocalStore, name: str, shard: Sequence[GenerationRequest], made: Sequence[Generation]
) -> None:
    prompts = list(dict.fromkeys(request.prompt_ids for request in shard))
    first = {request.prompt_ids: g for request, g in zip(shard, made, strict=True)}
    rows = [
        Response(str(i), r.seed, "", list(r.prompt_ids), "", list(g.response_ids), g.finish)
        for i, (r, g) in enumerate(zip(shard, made, strict=True))
    ]
    activations = Activations(
        response_avg=np.stack([generation.response_avg for generation in made]),
        prompt_avg=np.stack([first[prompt].prompt_avg for prompt in prompts]),
        prompt_last=np.stack([first[prompt].prompt_last for prompt in prompts]),
        prompt_of=np.array([prompts.index(request.prompt_ids) for request in shard]),
    )
    store.write(f"{name}/responses.parquet", encode_responses(rows))
    store.write(f"{name}/activations.safetensors", encode_activations(activations))
