"""Protects the text that scores stand under: joined it is the response, letter by letter."""

from __future__ import annotations

import pytest

from tests.engine_work import tiny
from tests.tiny_models import byte_ids
from workers.models.chat import TokenTexts, decode_response
from workers.models.model import LoadedModel


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny(tmp_path_factory.mktemp("model"), "llama")


@pytest.mark.parametrize("text", ["plain words", "née, 😀 and €", "😀", "\n\n  x"])
def test_texts_of_tokens_join_to_the_response(model: LoadedModel, text: str) -> None:
    ids = byte_ids(text)

    found = TokenTexts(model).all(ids)

    assert len(found) == len(ids)
    assert "".join(found) == text


def test_a_letter_of_several_tokens_stands_at_its_last(model: LoadedModel) -> None:
    found = TokenTexts(model).all(byte_ids("a😀b"))

    assert found == ("a", "", "", "", "😀", "b")


def test_bytes_that_never_become_a_letter_stand_at_the_end(model: LoadedModel) -> None:
    ids = byte_ids("a😀")[:-1]

    found = TokenTexts(model).all(ids)

    assert "".join(found) == decode_response(model, ids)


def test_special_tokens_have_no_text_and_disturb_none(model: LoadedModel) -> None:
    ids = (*byte_ids("ab"), 5, 5, *byte_ids("cd"))

    assert TokenTexts(model).all(ids) == ("a", "b", "", "", "c", "d")


def test_many_responses_share_what_was_looked_up(model: LoadedModel) -> None:
    texts = TokenTexts(model)

    assert texts.all(byte_ids("née")) == texts.all(byte_ids("née"))
