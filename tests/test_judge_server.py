"""Protects the local judge: OpenAI's protocol through the real client, numbers however cut."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
import uvicorn
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.chat import ChatCompletion
from transformers import AutoTokenizer

import workers.judge.local_model
from domain.traits.judge_prompt import coherence_prompt
from storage.files.trait_files import load_trait
from tests.tiny_models import save_tiny_model
from workers.judge.local_model import LocalJudge
from workers.judge.server import Backend, Writer, embedded_backend, make_server
from workers.models.chat import render_prompt
from workers.models.model import load_model


@contextlib.contextmanager
def served(backend: Backend, name: str, writer: Writer | None = None) -> Iterator[str]:
    app = make_server(backend, model_name=name, writer=writer)
    config = uvicorn.Config(app, port=0, log_level="error", lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = True
    thread.join(timeout=5)


def local_judge(folder: Path, *, whole_numbers: bool) -> LocalJudge:
    """A random tiny model whose tokenizer keeps "85" whole or splits it into digits."""
    save_tiny_model(folder, "llama", changes={"vocab_size": 400})
    if whole_numbers:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens([str(n) for n in range(10, 101)])
        tokenizer.save_pretrained(folder)
    return LocalJudge(load_model(str(folder)))


def sequence_probability(judge: LocalJudge, prompt: str, text: str) -> float:
    """Product of the next-token probabilities of a text after the prompt, one plain forward."""
    start = list(render_prompt(judge.model, system=None, user=prompt).token_ids)
    ids = judge.model.tokenizer.encode(text, add_special_tokens=False)
    with torch.inference_mode():
        logits = judge.model.model(torch.tensor([start + ids])).logits[0].double()
    steps = torch.log_softmax(logits, dim=-1)[len(start) - 1 : -1]
    return math.exp(sum(float(steps[k, token]) for k, token in enumerate(ids)))


@pytest.mark.parametrize("number", [0, 7, 10, 42, 100])
def test_split_digits_are_walked_and_a_shorter_number_must_end(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a random model spreads its mass thinly, so nothing may be left out here
    monkeypatch.setattr(workers.judge.local_model, "NEGLIGIBLE", 0.0)
    judge, prompt = local_judge(tmp_path, whole_numbers=False), "Rate this from 0 to 100."

    reply = asyncio.run(judge.reply(prompt))

    expected = 0.0
    for text in (str(number), f" {number}"):
        further = [d for d in "0123456789" if int(text) != 0 and int(text + d) <= 100]
        going_on = sum(sequence_probability(judge, prompt, text + d) for d in further)
        expected += sequence_probability(judge, prompt, text) - going_on
    assert dict(reply.candidates)[str(number)] == pytest.approx(expected, rel=1e-3)


def test_whole_numbers_are_read_from_the_first_token(tmp_path: Path) -> None:
    judge = local_judge(tmp_path, whole_numbers=True)

    reply = asyncio.run(judge.reply("Rate this from 0 to 100."))

    prompt = render_prompt(judge.model, system=None, user="Rate this from 0 to 100.").token_ids
    with torch.inference_mode():
        logits = judge.model.model(torch.tensor([prompt])).logits[0, -1].double()
    first = torch.softmax(logits, dim=-1)
    token = judge.model.tokenizer.convert_tokens_to_ids("85")
    spaced = sequence_probability(judge, "Rate this from 0 to 100.", " 85")
    assert dict(reply.candidates)["85"] == pytest.approx(float(first[token]) + spaced, rel=1e-3)


def test_the_real_client_gets_logprobs_from_the_built_in_judge() -> None:
    from workers.judge.server import MODEL_NAME, embedded_backend

    async def ask(url: str) -> list[tuple[str, float]]:
        client = AsyncOpenAI(base_url=url, api_key="none")
        assert [m.id async for m in client.models.list()] == [MODEL_NAME]
        answer = await client.chat.completions.create(
            model=MODEL_NAME,
            messages=[{"role": "user", "content": coherence_prompt("Hi?", "I am well today.")}],
            max_tokens=1,
            logprobs=True,
            top_logprobs=20,
        )
        content = answer.choices[0].logprobs
        assert content and content.content
        return [(top.token, top.logprob) for top in content.content[0].top_logprobs]

    with served(embedded_backend, MODEL_NAME) as url:
        tops = asyncio.run(ask(url))

    assert 1 <= len(tops) <= 20
    assert all(0 <= int(token) <= 100 for token, _ in tops)
    assert [p for _, p in tops] == sorted((p for _, p in tops), reverse=True)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("What is 2 + 2?", "--judge-url"),
        (
            load_trait("evil").judge_prompt("Q", "A").replace("**evil**", "**tidiness**"),
            "'tidiness'",
        ),
    ],
)
def test_the_built_in_judge_says_what_it_cannot_judge_and_the_way_out(
    prompt: str, words: str
) -> None:
    from workers.judge.server import MODEL_NAME, embedded_backend

    async def ask(url: str) -> None:
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        await client.chat.completions.create(
            model=MODEL_NAME, messages=[{"role": "user", "content": prompt}]
        )

    with served(embedded_backend, MODEL_NAME) as url, pytest.raises(BadRequestError, match=words):
        asyncio.run(ask(url))


def test_another_models_name_is_refused() -> None:
    from workers.judge.server import MODEL_NAME, embedded_backend

    async def ask(url: str) -> None:
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        await client.chat.completions.create(
            model="gpt-4", messages=[{"role": "user", "content": "x"}]
        )

    with served(embedded_backend, MODEL_NAME) as url, pytest.raises(NotFoundError, match="gpt-4"):
        asyncio.run(ask(url))


def test_every_bundled_prompt_is_understood_by_the_built_in_judge() -> None:
    from domain.traits.definition import BUNDLED_TRAITS
    from workers.judge.server import embedded_backend

    for name in BUNDLED_TRAITS:
        prompt = load_trait(name).judge_prompt("How do I boil an egg?", "Boil it for {n} minutes.")
        reply = asyncio.run(embedded_backend(prompt))
        assert sum(p for _, p in reply.candidates) == pytest.approx(1.0)


def test_a_page_that_leads_its_own_name_here_and_an_endless_request_are_refused() -> None:
    body = {"model": "embedded-judge", "messages": [{"role": "user", "content": "x" * (9 << 20)}]}
    with served(embedded_backend, "embedded-judge") as url:
        foreign = httpx2.post(f"{url}/chat/completions", headers={"host": "evil.example"}, json={})
        large = httpx2.post(f"{url}/chat/completions", json=body)

    assert [foreign.status_code, large.status_code] == [403, 413]


def test_a_chat_model_writes_for_who_asks_without_logprobs_and_scores_for_who_asks_with(
    tmp_path: Path,
) -> None:
    judge = local_judge(tmp_path, whole_numbers=True)

    async def ask(url: str, **more: Any) -> ChatCompletion:
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        turns: Any = [{"role": "user", "content": "Write a list."}]
        found: ChatCompletion = await client.chat.completions.create(
            model="m", messages=turns, **more
        )
        return found

    with served(judge.reply, "m", judge.write) as url:
        written = asyncio.run(ask(url, max_completion_tokens=30))
        scored = asyncio.run(ask(url, logprobs=True, top_logprobs=20))

    assert written.usage is not None
    # a random model hardly ever ends its turn
    assert written.choices[0].finish_reason == "length"
    assert (written.usage.completion_tokens, written.choices[0].logprobs) == (30, None)
    assert scored.choices[0].logprobs is not None
    assert 0 <= int(scored.choices[0].message.content or "") <= 100
