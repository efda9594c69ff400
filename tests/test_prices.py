"""Protects prices: a known judge has one, an unknown one has none, the user's own goes first."""

from __future__ import annotations

import json
import socket

import pytest

from cli.options.run import asked_terms
from domain.errors import UsageError
from domain.plan.spec import JudgeSpec
from domain.scoring.prices import Price, parse_prices, price_of
from storage.record.spending import Terms

OPENAI = "https://api.openai.com/v1"
PROXY = "http://10.0.0.7:4000/v1"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("prices come from what is installed")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_the_price_that_a_run_began_with_stays_until_another_is_given() -> None:
    judge = JudgeSpec(model="gpt-4o-mini", url=OPENAI)
    before = Terms(price=Price(input=3, output=12, source="my prices"), cap_usd=1)
    given = {"prices": None, "budget": 9, "no_judge_cache": False, "judge_batch": False}

    assert asked_terms(given, judge, before=before).price == before.price
    assert asked_terms(given, judge, before=Terms()).price == price_of(judge.model, judge.url)


@pytest.mark.parametrize("url", [OPENAI, PROXY])
@pytest.mark.parametrize("name", ["gpt-4o-mini", "openai/gpt-4o-mini", "gpt-4o-mini-2024-07-18"])
def test_a_vendor_s_model_has_its_price_wherever_it_is_asked(name: str, url: str) -> None:
    price = price_of(name, url)

    assert price is not None
    assert (price.input, price.output, price.retires) == (0.15, 0.60, "2027-01-14")


def test_a_price_that_rises_with_the_prompt_is_that_of_short_prompts() -> None:
    price = price_of("gpt-6-luna", OPENAI)

    assert price is not None and 0 < price.input < price.output < 1


@pytest.mark.parametrize(
    "name", ["my-judge", "gpt-4o-mini-of-ours", "mistral-7b", "Qwen/Qwen2.5-7B-Instruct"]
)
def test_a_model_on_a_server_of_one_s_own_has_no_price(name: str) -> None:
    assert price_of(name, PROXY) is None


def test_what_the_endpoint_charges_is_known_by_its_address() -> None:
    name = "meta-llama/llama-3.1-8b-instruct"

    assert price_of(name, "https://openrouter.ai/api/v1") is not None
    assert price_of(name, PROXY) is None


def test_the_user_s_own_price_goes_first_and_says_where_it_is_from() -> None:
    table = {"date": "2026-11-01", "models": {"gpt-4o-mini": {"input": 7, "output": 8}}}

    price = price_of(
        "gpt-4o-mini-2024-07-18", OPENAI, own=parse_prices(json.dumps(table), name="f")
    )

    assert price is not None
    assert (price.input, price.output, price.retires) == (7, 8, None)
    assert "2026-11-01" in price.source


@pytest.mark.parametrize(
    "text", ["", "[]", '{"models": []}', '{"models": {"a": {"input": -1, "output": 2}}}']
)
def test_a_file_that_holds_no_prices_is_a_usage_error_that_names_it(text: str) -> None:
    with pytest.raises(UsageError, match=r"own\.json"):
        parse_prices(text, name="own.json")
