"""A local chat model as judge: the probability of every number 0..100 from its logits. Asked
without logprobs it writes, as any chat model does.

Tokenizers cut numbers differently: some keep "85" whole, some split it in "8" and "5". The
numbers' token sequences form a tree; a number's probability is the product along its path, times
the probability of not going on to a longer number.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Mapping, Sequence

import torch

from workers.judge.server import ServerReply, WrittenReply
from workers.models.chat import answered_ids, render_prompt
from workers.models.model import LoadedModel

# A branch this unlikely cannot move a score by a hundredth of a point.
NEGLIGIBLE = 1e-5

# Definitions are written at it: at 1 small models lose the form, at 0 they repeat themselves.
WRITING_TEMPERATURE = 0.7

Path = tuple[int, ...]


class LocalJudge:
    """One loaded chat model that answers with a distribution over numbers."""

    def __init__(self, model: LoadedModel) -> None:
        self.model, self._lock = model, threading.Lock()
        # number -> its token sequences, written bare or after a space
        self._paths: dict[int, set[Path]] = {
            number: {
                tuple(model.tokenizer.encode(text, add_special_tokens=False))
                for text in (str(number), f" {number}")
            }
            for number in range(101)
        }
        every = {path for found in self._paths.values() for path in found}
        self._inner = {path[:k] for path in every for k in range(len(path))}
        self._further = {
            node: {p[len(node)] for p in every if len(p) > len(node) and p[: len(node)] == node}
            for node in self._inner
        }

    async def reply(self, prompt: str) -> ServerReply:
        """The judge's reply to a prompt; forward passes run one at a time in a thread."""
        return await asyncio.to_thread(self._reply, prompt)

    async def write(self, prompt: str, most: int) -> WrittenReply:
        """A text of at most so many tokens, drawn at WRITING_TEMPERATURE."""
        return await asyncio.to_thread(self._write, prompt, most)

    @torch.inference_mode()
    def _write(self, prompt: str, most: int) -> WrittenReply:
        ids, _ = answered_ids(self.model, render_prompt(self.model, system=None, user=prompt), "")
        given = torch.tensor([ids], device=self.model.device)
        stops = sorted(self.model.stop_ids)
        with self._lock:
            made = self.model.model.generate(
                input_ids=given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=most,
                do_sample=True,
                temperature=WRITING_TEMPERATURE,
                eos_token_id=stops,
                pad_token_id=stops[0],
            )[0, len(ids) :].tolist()
        is_cut = made[-1] not in self.model.stop_ids
        text = self.model.tokenizer.decode(made, skip_special_tokens=True)
        return WrittenReply(text, len(ids), len(made), is_cut=is_cut)

    @torch.inference_mode()
    def _reply(self, prompt: str) -> ServerReply:
        asked = render_prompt(self.model, system=None, user=prompt)
        ids, _ = answered_ids(self.model, asked, "")
        with self._lock:
            numbers, refusal = self._distribution(ids)
        ranked = sorted(numbers.items(), key=lambda pair: -pair[1])
        candidates = [(str(number), p) for number, p in ranked if p > 0]
        candidates.append(("REFUSAL", refusal))
        return ServerReply(sorted(candidates, key=lambda pair: -pair[1]), prompt_tokens=len(ids))

    def _distribution(self, prompt_ids: Sequence[int]) -> tuple[dict[int, float], float]:
        passed = self.model.model(
            input_ids=torch.tensor([prompt_ids], device=self.model.device),
            use_cache=True,
            logits_to_keep=1,
        )
        following: dict[Path, torch.Tensor] = {
            (): torch.softmax(passed.logits[0, -1].double(), dim=-1)
        }
        reached: dict[Path, float] = {(): 1.0}
        for node in sorted(self._inner - {()}, key=len):
            reached[node] = _probability(node, reached, following)
            if reached[node] > NEGLIGIBLE:
                following[node] = self._next(passed.past_key_values, node)
        numbers = {
            number: sum(self._ends_at(path, reached, following) for path in found)
            for number, found in self._paths.items()
        }
        first = self.model.tokenizer.encode("REFUSAL", add_special_tokens=False)[0]
        return numbers, float(following[()][first])

    def _ends_at(
        self, path: Path, reached: Mapping[Path, float], following: Mapping[Path, torch.Tensor]
    ) -> float:
        """Probability that the reply is this path and then no further digit."""
        arrived = _probability(path, reached, following)
        if path not in following:
            return arrived
        return arrived * (1.0 - sum(float(following[path][t]) for t in self._further[path]))

    def _next(self, cache: object, node: Path) -> torch.Tensor:
        """Distribution after the prompt and a path; the prompt's keys and values are not run
        again."""
        passed = self.model.model(
            input_ids=torch.tensor([node], device=self.model.device),
            past_key_values=copy.deepcopy(cache),
        )
        return torch.softmax(passed.logits[0, -1].double(), dim=-1)


def _probability(
    path: Path, reached: Mapping[Path, float], following: Mapping[Path, torch.Tensor]
) -> float:
    parent = path[:-1]
    if parent not in following:
        return 0.0
    return reached[parent] * float(following[parent][path[-1]])
