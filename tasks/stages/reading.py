"""Whether a trait's vectors read its texts: from what the contexts stage measured, and the parts of
the vector that it leaves beside the others."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from domain.plan.samples import Sample
from domain.plan.spec import DEFAULT_POSITION, TraitRef
from domain.verdict.record import PARTS, PolarityCounts, Quality, ReadingFigures
from storage.record.artifacts import load_record
from storage.record.contexts import ContextActivations, load_contexts
from storage.record.judged_samples import kept_training
from storage.record.results import kept_keys
from storage.record.run import Run
from tasks.stages.quality import estimates_of, layer_numbers
from traitlens.arrays import Float32
from traitlens.assess.reading import FoldedDirections, Parts, Texts, context_and_text_parts, reading
from traitlens.vectors.files import from_safetensors_bytes, vector_files

# With fewer texts of a polarity, or of fewer questions, nothing can be said.
FEWEST_TEXTS, FEWEST_QUESTIONS = 7, 4


def reading_figures(
    run: Run, trait: TraitRef, quality: Quality, *, folder: str
) -> ReadingFigures | None:
    """How the vectors below a folder read, from the activations of the responses kept there; their
    two parts become files beside them.

    None where nothing was read again, or the vectors are of another position; figures without
    an answer where of what was read again too little is kept.
    """
    jobs = run.plan.contexts_jobs(trait)
    if not jobs or quality.position != DEFAULT_POSITION:
        return None
    try:
        load_record(run.store, jobs[0])
    except KeyError:
        return None
    stored = load_contexts(run.store, jobs[0])
    texts, directions = _kept_texts(run, trait, stored, kept_keys(run.store, folder))
    n_pos, n = int(texts.is_pos.sum()), len(texts.is_pos)
    counted = ReadingFigures(
        n=PolarityCounts(positive=n_pos, negative=n - n_pos),
        n_read=len(stored.keys),
        n_questions=len(set(texts.question)),
    )
    if min(n_pos, n - n_pos) < FEWEST_TEXTS or counted.n_questions < FEWEST_QUESTIONS:
        return counted
    found = reading(texts, directions)
    if not math.isfinite(found.p):
        # all of a polarity answer questions of one fold: no direction is made without them
        return counted
    parts = context_and_text_parts(texts)
    _write_parts(run, parts, folder, beside=quality.best.method)
    estimates = ("auroc", "cohens_d", "in_context_auroc", "instruction_auroc")
    figures = {
        "text_share": layer_numbers(parts.text_share),
        "context_share": layer_numbers(parts.context_share),
        **{name: estimates_of(getattr(found, name)) for name in estimates},
        "p": found.p,
        "layer": found.layer,
    }
    return counted.model_copy(update=figures)


def _kept_texts(
    run: Run, trait: TraitRef, stored: ContextActivations, kept: frozenset[str]
) -> tuple[Texts, FoldedDirections]:
    """What was read again and is kept, with directions from everything that is kept."""
    directions = FoldedDirections(range(trait.n_questions))
    place = {key: k for k, key in enumerate(stored.keys)}
    chosen: list[tuple[Sample, Float32]] = []
    for samples, rows in kept_training(run, trait, kept, DEFAULT_POSITION):
        directions.add(
            rows,
            is_pos=np.array([sample.polarity == "positive" for sample in samples]),
            labels=[sample.question for sample in samples],
        )
        own = zip(samples, rows, strict=True)
        chosen += [(sample, row.copy()) for sample, row in own if sample.key in place]
    rows_read = [place[sample.key] for sample, _ in chosen]
    opposite = stored.opposite[rows_read]
    texts = Texts(
        own=np.stack([row for _, row in chosen]) if chosen else opposite,
        opposite=opposite,
        plain=stored.plain[rows_read],
        is_pos=np.array([sample.polarity == "positive" for sample, _ in chosen], dtype=bool),
        instruction=[sample.instruction for sample, _ in chosen],
        question=[sample.question for sample, _ in chosen],
    )
    return texts, directions


def _write_parts(run: Run, parts: Parts, folder: str, *, beside: str) -> None:
    """vectors/text.safetensors and context.safetensors, which sum to the mean difference of the
    responses that were read again; their provenance is that of the method's `beside` them."""
    own = from_safetensors_bytes(run.store.read(f"{folder}/vectors/{beside}.safetensors"))
    by_method = {
        name: {DEFAULT_POSITION: getattr(parts, name).astype(np.float32)} for name in PARTS
    }
    extra = {name: one for name, one in own.provenance.extra.items() if name != "tested"}
    for name, data in vector_files(by_method, replace(own.provenance, extra=extra)).items():
        run.store.write(f"{folder}/vectors/{name}", data)
