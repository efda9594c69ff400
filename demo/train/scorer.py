"""Trains the scorer's weights on generated and on damaged text, and prints how well they agree."""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

from demo.scorer import (
    KNOWN_TRAITS,
    START,
    STOP,
    WEIGHTS,
    coherence_features,
    demo_coherence_score,
    demo_trait_score,
    masked_words,
    ngrams,
    word_hash,
    words_of,
)
from demo.train.corpus import Mix, draw_question, draw_topic, plain_sentences, trait_sentences
from domain.plan.samples import ANY_POLARITY, POLARITIES, AnyPolarity, Polarity

TOP, BOTTOM, PLAIN_LABEL, OTHER_LABEL = 0.95, 0.04, 0.12, 0.15
GOOD_COHERENCE = 0.97
MIXED_SHARE = 0.3
N_FOR_COHERENCE = 12000
SMALLEST_COUNT = 12  # an n-gram or word seen less often is a topic or a name, not a marker


@dataclass(frozen=True)
class Text:
    """One answer; `shares` has the share of the words that each polarity of the trait spoke."""

    trait: str
    question: str
    answer: str
    shares: Mapping[str, float]

    def label(self, trait: str) -> float:
        """The target, 0 to 1, when the text is rated for the trait."""
        if trait != self.trait:
            return PLAIN_LABEL if not self.shares else OTHER_LABEL
        positive, negative = self.shares.get("positive", 0.0), self.shares.get("negative", 0.0)
        plain = 1.0 - (positive + negative)
        return positive * TOP + negative * BOTTOM + plain * PLAIN_LABEL


def train_scorer() -> None:
    """Train, write the weights, print agreement on fresh texts about held-out topics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=40000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    texts = [_draw_text(rng, held_out=False) for _ in range(options.texts)]
    known = _known_words(texts)
    seen = _seen_sequences(texts, known=known)
    # Fresh ones: to the texts that filled `seen` nothing is strange.
    fresh = [_draw_text(rng, held_out=False) for _ in range(N_FOR_COHERENCE)]
    weighed = [trait for trait in KNOWN_TRAITS if trait != "verbosity"]
    data = {
        "traits": {trait: _trait_weights(trait, texts) for trait in weighed},
        "coherence": _coherence_weights(fresh, known=known, seen=seen, rng=rng),
        "known_words": sorted(known),
    }
    WEIGHTS.mkdir(exist_ok=True)
    body = json.dumps(data, separators=(",", ":"))
    (WEIGHTS / "weights.json").write_text(f"{body}\n", encoding="utf-8")
    np.savez_compressed(WEIGHTS / "seen.npz", hashes=np.array(sorted(seen), dtype=np.uint32))
    _print_agreement(random.Random(options.seed + 1))


def _draw_text(rng: random.Random, *, held_out: bool) -> Text:
    """A text in one voice, a plain one, or one whose sentences two voices take turns in."""
    trait, polarity = rng.choice(KNOWN_TRAITS), rng.choice(POLARITIES)
    topic = draw_topic(rng, invented=0.15, held_out=held_out)
    question = draw_question(trait, topic, rng, mix=Mix())
    if rng.random() < 0.15:
        return Text(trait, question, " ".join(plain_sentences(topic, rng)), {})
    spoken = _voiced(polarity, trait_sentences(trait, polarity, topic, rng))
    if rng.random() < MIXED_SHARE:
        if rng.random() < 0.4:
            other: Polarity = "negative" if polarity == "positive" else "positive"
            added = _voiced(other, trait_sentences(trait, other, topic, rng))
        else:
            added = _voiced("plain", plain_sentences(topic, rng))
        spoken = rng.sample(spoken, rng.randint(1, len(spoken))) + added
        rng.shuffle(spoken)
    n_words = sum(len(line.split()) for line, _ in spoken)
    shares: dict[str, float] = {
        name: sum(len(line.split()) for line, voice in spoken if voice == name) / n_words
        for name in POLARITIES
    }
    return Text(trait, question, " ".join(line for line, _ in spoken), shares)


def _voiced(polarity: AnyPolarity, lines: list[str]) -> list[tuple[str, AnyPolarity]]:
    return [(line, polarity) for line in lines]


def _known_words(texts: list[Text]) -> frozenset[str]:
    counts = Counter(
        word.lower() for text in texts for word in words_of(text.answer) if not word[0].isdigit()
    )
    return frozenset(word for word, count in counts.items() if count >= SMALLEST_COUNT)


def _seen_sequences(texts: list[Text], *, known: frozenset[str]) -> frozenset[int]:
    """The hashes of pairs and triples of masked words that occur at least twice."""
    counts: Counter[int] = Counter()
    for text in texts:
        words = [START, *masked_words(text.question, text.answer, known=known), STOP]
        counts.update(word_hash(pair) for pair in pairwise(words))
        counts.update(
            word_hash(triple) for triple in zip(words, words[1:], words[2:], strict=False)
        )
    return frozenset(number for number, count in counts.items() if count >= 2)


def _trait_weights(trait: str, texts: list[Text]) -> dict[str, object]:
    """Intercept and n-gram weights of a sparse logistic regression on soft labels."""
    rows = [ngrams(text.answer) for text in texts]
    vectorizer = DictVectorizer()
    matrix = csr_matrix(vectorizer.fit_transform(rows))
    frequent = np.flatnonzero(np.diff(matrix.tocsc().indptr) >= SMALLEST_COUNT)
    matrix = matrix[:, frequent]
    # texts of the trait itself count more: the line between its polarities is what the score is for
    own = np.array([3.0 if text.trait == trait else 1.0 for text in texts])
    shares = np.array([text.label(trait) for text in texts])
    model = LogisticRegression(l1_ratio=1.0, solver="liblinear", C=3.0, max_iter=60, tol=1e-3)
    _fit_shares(model, matrix, shares, own)
    names = vectorizer.get_feature_names_out()[frequent]
    kept = {
        name: round(float(weight), 2)
        for name, weight in zip(names, model.coef_[0], strict=True)
        if abs(weight) >= 0.1
    }
    return {"intercept": round(float(model.intercept_[0]), 4), "ngrams": kept}


def _coherence_weights(
    texts: list[Text], *, known: frozenset[str], seen: frozenset[int], rng: random.Random
) -> list[float]:
    """The weights of a logistic regression that tells whole texts from damaged ones."""
    rows, labels = [], []
    for text in texts:
        answer, label = (
            (text.answer, GOOD_COHERENCE) if rng.random() < 0.5 else _damaged(text.answer, rng)
        )
        rows.append(coherence_features(text.question, answer, known=known, seen=seen))
        labels.append(label)
    model = LogisticRegression(C=30.0, fit_intercept=False, max_iter=2000)
    _fit_shares(model, csr_matrix(np.array(rows)), np.array(labels), np.ones(len(labels)))
    return [round(float(weight), 4) for weight in model.coef_[0]]


def _fit_shares(
    model: LogisticRegression, matrix: csr_matrix, shares: np.ndarray, weights: np.ndarray
) -> None:
    """Fit to labels between 0 and 1: each row counts as a share of a yes and the rest of a no."""
    targets = np.r_[np.ones(len(shares)), np.zeros(len(shares))]
    both = np.r_[weights * shares, weights * (1 - shares)]
    model.fit(vstack([matrix, matrix]), targets, sample_weight=both)


def _print_agreement(rng: random.Random) -> None:
    """Print, for held-out topics, mean scores by label and the share on the right side of 50."""
    texts = [_draw_text(rng, held_out=True) for _ in range(8000)]
    rows = {}
    for trait in KNOWN_TRAITS:
        groups: dict[str, list[float]] = {name: [] for name in (*ANY_POLARITY, "other")}
        for text in texts:
            score = demo_trait_score(trait, question=text.question, answer=text.answer)
            names = ["other"] if text.shares else ["plain"]
            if text.shares and text.trait == trait:
                names = [name for name, share in text.shares.items() if share == 1.0]
            for name in names:
                groups[name].append(score)
        right = np.mean([s > 50 for s in groups["positive"]] + [s < 50 for s in groups["negative"]])
        means = {name: np.mean(scores) for name, scores in groups.items()}
        rows[trait] = {**means, "right side of 50": f"{right:.1%}"}
    print(pd.DataFrame.from_dict(rows, orient="index").to_string(float_format="{:.1f}".format))
    whole = np.array([demo_coherence_score(question=t.question, answer=t.answer) for t in texts])
    broken = [(text.question, *_damaged(text.answer, rng)) for text in texts]
    scores = [
        demo_coherence_score(question=question, answer=answer) for question, answer, _ in broken
    ]
    correlation = np.corrcoef(scores, [left for *_, left in broken])[0, 1]
    print(
        f"coherence: whole texts {whole.mean():.1f} (share over 50: {(whole > 50).mean():.1%}),"
        f" damaged texts {np.mean(scores):.1f}, correlation with damage {correlation:.2f}"
    )


# How a damage is done: words in, words out, and the share of coherence left, between 0 and 1.
Damage = Callable[[list[str], random.Random], tuple[list[str], float]]


def _damaged(text: str, rng: random.Random) -> tuple[str, float]:
    """The text after one random damage and the coherence, 0 to 1, that is left."""
    words, left = rng.choice(_DAMAGES)(text.split(), rng)
    return " ".join(words), left


def _shuffle(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    return rng.sample(words, len(words)), 0.06


def _swap_some(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    words, n_swaps = list(words), max(1, round(len(words) * rng.uniform(0.02, 0.25)))
    for _ in range(n_swaps):
        first, second = rng.randrange(len(words)), rng.randrange(len(words))
        words[first], words[second] = words[second], words[first]
    return words, max(0.08, 0.92 - 3.5 * n_swaps / len(words))


def _drop_some(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    share = rng.uniform(0.03, 0.4)
    left = [word for word in words if rng.random() > share] or words[:1]
    return left, max(0.08, 0.92 - 2.5 * share)


def _repeat_words(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    share = rng.uniform(0.1, 0.6)
    mixed = [copy for word in words for copy in [word] * (1 + 2 * (rng.random() < share))]
    return mixed, max(0.05, 0.6 - 2 * share)


def _loop(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    start, length = rng.randrange(len(words)), rng.randint(1, 6)
    piece = words[start : start + length]
    return words[: start + length] + piece * rng.randint(4, 12), 0.1


def _truncate(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    return words[: rng.randint(max(1, len(words) // 3), max(1, len(words) - 2))], 0.6


def _garble_letters(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    share = rng.uniform(0.1, 0.9)
    anagrams = ("".join(rng.sample(word, len(word))).lower() for word in words)
    mixed = [new if rng.random() < share else old for old, new in zip(words, anagrams, strict=True)]
    return mixed, max(0.04, 0.6 - 1.5 * share)


def _glue(words: list[str], rng: random.Random) -> tuple[list[str], float]:
    halves = [word[: max(1, len(word) // 2)] for word in words]
    share = rng.uniform(0.04, 0.9)
    glued = (half + rng.choice(halves).lower() for half in halves)
    mixed = [new if rng.random() < share else old for old, new in zip(words, glued, strict=True)]
    return mixed, max(0.04, 0.88 - 2 * share)


def _flatten(words: list[str], _rng: random.Random) -> tuple[list[str], float]:
    return [word.lower().strip(".,!?") for word in words], 0.5


_DAMAGES: tuple[Damage, ...] = (
    _shuffle,
    _swap_some,
    _swap_some,
    _drop_some,
    _repeat_words,
    _loop,
    _truncate,
    _garble_letters,
    _glue,
    _flatten,
)

if __name__ == "__main__":
    train_scorer()
