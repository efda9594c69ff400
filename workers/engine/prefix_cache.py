"""The prefix cache: each distinct prompt runs through the model once, and its keys and values are
kept for its rollouts, and laid out for those that are decoded at the moment.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from traitlens.arrays import Float32
from traitlens.capture.sinks import mean_without_sinks, sums_before_last
from workers.engine.attention import PrefillPass
from workers.engine.forward import MeasuredForward, Projector
from workers.engine.generation import PromptKey
from workers.engine.slot_cache import SlotCache
from workers.engine.states import States
from workers.models.device import is_out_of_memory

# Padded tokens of one forward pass, where matrix products are at their full rate.
BATCH_TOKENS_CPU = 1024
BATCH_TOKENS_GPU = 8192

# Batches of prompts kept after use, for rollouts that other jobs ask for later.
KEPT_BATCHES = 2

# More rows on one place would widen the padded layout for every other prompt.
MOST_SHARERS = 16


@dataclass(eq=False)
class Prefix:
    """A prompt without its last token, which is each rollout's first decode step.

    keys and values: by layer [kv_heads, tokens - 1, head_dim], empty while they lie in a place;
    `states` those of layers that keep none, before the last token, without the dimension of rows;
    `sums` what `sums_before_last` gives of each layer, [L+1, ...] on the device. `last`, `average`
    [L+1, d_model] and `sinks`, how many tokens the average leaves out where it leaves out most,
    appear on the host when the first rollout has taken that step. `projections`
    [tokens - 1, 2, k] where the prompt's key has directions. `forgotten` is true of one that no
    further rollout will ask for.
    """

    tokens: int
    keys: dict[int, Tensor]
    values: dict[int, Tensor]
    states: States
    sums: tuple[Tensor, Tensor, Tensor] | None
    last: Float32 | None = None
    average: Float32 | None = None
    sinks: int = 0
    projections: Float32 | None = None
    forgotten: bool = False

    def forget(self) -> None:
        """Hold what no further rollout will ask for no more; those that run have their own."""
        self.keys, self.values, self.states = {}, {}, {}
        self.forgotten = True

    def take_last(self, states: Tensor) -> None:
        """Note the states [L+1, d_model], float32, of the last prompt token."""
        # A copy, because on a CPU the array would share memory with the states.
        self.last = states.cpu().numpy().copy()
        if self.sums is None:
            self.average = self.last
            return
        mean, n = mean_without_sinks(*self.sums, states)
        self.average, self.sinks = mean.cpu().numpy(), self.tokens - int(n.min())


class PrefixCache:
    """Prefixes by their prompts' keys: what rollouts need now, and the latest ones beyond that."""

    def __init__(self, forward: MeasuredForward, projector: Projector) -> None:
        self._forward, self._projector = forward, projector
        self._ready: OrderedDict[PromptKey, Prefix] = OrderedDict()
        on_cpu = forward.model.device.type == "cpu"
        self.batch_tokens = BATCH_TOKENS_CPU if on_cpu else BATCH_TOKENS_GPU
        self.reaches: dict[int, tuple[int | None, int | None]] = {}
        self.tokens_run = 0
        self.token_bytes = 0
        # Of one prompt's states, whatever its length.
        self.state_bytes = 0
        self.capture_seconds = 0.0

    def __contains__(self, prompt: PromptKey) -> bool:
        prefix = self._ready.get(prompt)
        return prefix is not None and not prefix.forgotten

    def without_place(self, prompts: Iterable[PromptKey]) -> list[PromptKey]:
        """Those of the prompts, each once, whose keys and values lie in no place yet."""
        return [
            prompt
            for prompt in dict.fromkeys(prompts)
            if prompt not in self or self._ready[prompt].keys
        ]

    def take(self, prompt: PromptKey) -> Prefix:
        """A prompt that is ready; KeyError otherwise."""
        self._ready.move_to_end(prompt)
        return self._ready[prompt]

    def prefill(self, prompts: Iterable[PromptKey]) -> None:
        """Run missing prompts, as many of them as fit into one batch, the first one at least; where
        layers keep states, those of its length."""
        batch: list[PromptKey] = []
        widest = 0
        for prompt in prompts:
            if self._forward.stateful and widest not in (0, len(prompt.token_ids)):
                continue
            widest = max(widest, len(prompt.token_ids))
            if batch and widest * (len(batch) + 1) > self.batch_tokens:
                break
            batch.append(prompt)
        for prompt in batch:
            # one that was forgotten counts as new
            self._ready.pop(prompt, None)
            if len(prompt.token_ids) == 1:
                self._ready[prompt] = Prefix(1, {}, {}, {}, None)
        self._run([prompt for prompt in batch if len(prompt.token_ids) > 1])
        kept = sum(prefix.tokens for prefix in self._ready.values())
        while kept > KEPT_BATCHES * self.batch_tokens and len(self._ready) > len(batch):
            _, oldest = self._ready.popitem(last=False)
            kept -= oldest.tokens
            oldest.forget()

    def halve(self) -> None:
        """Forget what is kept and take half as many tokens at once from now on."""
        for prefix in self._ready.values():
            prefix.forget()
        self._ready.clear()
        self.batch_tokens = max(1, self.batch_tokens // 2)

    def _run(self, prompts: list[PromptKey]) -> None:
        if not prompts:
            return
        lengths = torch.tensor([len(prompt.token_ids) - 1 for prompt in prompts])
        ids = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : lengths[row]] = torch.tensor(prompt.token_ids[:-1])
        device = self._forward.model.device
        real = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).to(device)
        wanted = {layer for p in prompts if p.directions for layer in p.directions.layers}
        stored = PrefillPass(stateful=self._forward.stateful)
        sums: list[tuple[Tensor, Tensor, Tensor]] = []
        states: dict[int, Tensor] = {}

        def watch(layer: int, of_layer: Tensor) -> None:
            started = time.perf_counter()
            sums.append(sums_before_last(of_layer, real))
            if layer in wanted:
                states[layer] = of_layer
            self.capture_seconds += time.perf_counter() - started

        self._forward.prefill(ids, stored, [prompt.steering for prompt in prompts], watch)
        states_kept = {} if stored.states is None else stored.states.kept
        # each [prompt, layer, ...]
        total, stay, limit = (
            torch.stack([one.to(device) for one in of_layers], dim=1)
            for of_layers in zip(*sums, strict=True)
        )
        for row, prompt in enumerate(prompts):
            kept = slice(0, int(lengths[row]))
            projections = None
            if prompt.directions:
                own = {layer: states[layer][row, kept] for layer in prompt.directions.layers}
                projections = self._projector.project(own, prompt.directions).cpu().numpy()
            self._ready[prompt] = Prefix(
                tokens=len(prompt.token_ids),
                keys={layer: k[row, :, kept] for layer, k in stored.keys.items()},
                values={layer: v[row, :, kept] for layer, v in stored.values.items()},
                states={key: of_all[row] for key, of_all in states_kept.items()},
                sums=(total[row], stay[row], limit[row]),
                projections=projections,
            )
        self.reaches = stored.reaches
        self.tokens_run += int(lengths.sum())
        by_token = (*stored.keys.values(), *stored.values.values())
        self.token_bytes = sum(t.nbytes for t in by_token) // ids.numel()
        self.state_bytes = sum(t.nbytes for t in states_kept.values()) // len(prompts)


@dataclass(eq=False)
class Place:
    """Where a prefix in use lies in the cache, and how many rows share it."""

    index: int
    prefix: Prefix
    sharers: int = 0


class SharedPrefixes:
    """The prefixes in use, in dense places 0..n-1 of a cache of their own, where their keys and
    values lie meanwhile."""

    def __init__(self, n_layers: int, *, on_cpu: bool) -> None:
        self.cache = SlotCache(n_layers, on_cpu=on_cpu)
        self._places: list[Place] = []

    @property
    def columns(self) -> int:
        """Cached tokens of the longest prefix in use."""
        return max((place.prefix.tokens - 1 for place in self._places), default=0)

    def __len__(self) -> int:
        return len(self._places)

    def expect(self, lengths: Sequence[int]) -> None:
        """Have memory for further prefixes of so many tokens at once, where there are some."""
        if lengths:
            places = len(self._places)
            self.cache.reserve(places + len(lengths), max(lengths) - 1, kept=places)

    def shrink(self) -> None:
        """Give back what no place fills."""
        self.cache.shrink(len(self), self.columns)

    def join(self, prefix: Prefix) -> Place:
        """Take a share in a prefix's place, made now if it has none to spare."""
        places = self._places_of(prefix)
        for place in places:
            if place.sharers < MOST_SHARERS:
                place.sharers += 1
                return place
        place = Place(len(self._places), prefix, 1)
        columns = prefix.tokens - 1
        self.cache.reserve(place.index + 1, columns, kept=place.index)
        if places:
            self.cache.copy_from(self.cache, places[0].index, place.index, columns)
        else:
            self.cache.load(place.index, prefix.keys, prefix.values)
            prefix.keys, prefix.values = {}, {}
        self._places.append(place)
        return place

    def leave(self, place: Place) -> None:
        """Give a share back; a place that nobody shares is filled by the last one.

        A prefix that further rollouts may ask for gets its keys and values back with its last
        share, or is forgotten where there is no memory for them.
        """
        prefix = place.prefix
        if place.sharers == 1 and not prefix.forgotten and self._places_of(prefix) == [place]:
            try:
                prefix.keys, prefix.values = self.cache.read(place.index, prefix.tokens - 1)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                prefix.forget()
        place.sharers -= 1
        if place.sharers:
            return
        last = self._places.pop()
        if last is not place:
            self.cache.copy_from(self.cache, last.index, place.index, last.prefix.tokens - 1)
            last.index = place.index
            self._places[last.index] = last

    def ranks(self, row_places: Sequence[Place]) -> list[int]:
        """How many rows before it share its place, for each row."""
        taken = [0] * len(self._places)
        ranks: list[int] = []
        for place in row_places:
            ranks.append(taken[place.index])
            taken[place.index] += 1
        return ranks

    def _places_of(self, prefix: Prefix) -> list[Place]:
        return [place for place in self._places if place.prefix is prefix]
