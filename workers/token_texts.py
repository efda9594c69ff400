"""The text of each token of a response, such that the texts joined are the response.

A letter of several tokens stands at the last of them. Knows nothing about scores.
"""

from __future__ import annotations

from collections.abc import Sequence

from workers.chat import decode_response
from workers.model import LoadedModel

# What decoders put where bytes are not yet, or never, a letter.
INCOMPLETE = "\ufffd"
# A token's text depends on the one before it, which is looked up again and again.
REMEMBERED = 2**16


class TokenTexts:
    """Texts of tokens as they come, for many responses of one model."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._pairs: dict[tuple[int, int], str] = {}

    def all(self, ids: Sequence[int]) -> tuple[str, ...]:
        """One text a token."""
        texts: list[str] = []
        while len(texts) < len(ids):
            texts.append(self.next(ids, len(texts), texts))
        return tuple(texts)

    def next(self, ids: Sequence[int], index: int, before: Sequence[str]) -> str:
        """The text of token `index`, given those before it; empty while a letter is incomplete."""
        is_open = index > 0 and before[index - 1] == ""
        if not is_open:
            text = self._after(ids[index - 1], ids[index]) if index else self._decode(ids[:1])
            if INCOMPLETE not in text:
                return text
        opened = index
        while opened and before[opened - 1] == "":
            opened -= 1
        start = max(0, opened - 1)  # the last token whose text is known, for its space
        text = self._decode(ids[start : index + 1])[len(self._decode(ids[start:opened])) :]
        is_last = index == len(ids) - 1
        return "" if text.endswith(INCOMPLETE) and not is_last else text

    def _after(self, previous: int, token: int) -> str:
        pair = (previous, token)
        if pair not in self._pairs:
            if len(self._pairs) >= REMEMBERED:
                self._pairs.clear()
            alone = self._decode([previous])
            self._pairs[pair] = self._decode([previous, token])[len(alone) :]
        return self._pairs[pair]

    def _decode(self, ids: Sequence[int]) -> str:
        return decode_response(self._model, ids)
