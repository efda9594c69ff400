"""Records of vectors that pass every gate, to be changed in one place each."""

from __future__ import annotations

from typing import Any

from domain.plan.spec import ChecksSpec
from domain.verdict.record import (
    Best,
    CausalFigures,
    CurveFigures,
    DifferenceFigures,
    EffectiveSizes,
    Estimate,
    Estimates,
    EvaluationCounts,
    EvaluationFigures,
    HalfFigures,
    MethodCosines,
    MethodFigures,
    PolarityCounts,
    Quality,
    ReadingFigures,
    SeparationFigures,
    TestedFigures,
    TraitMetrics,
)

Known = tuple[float, float] | None
"""A value and the low end of its interval."""

LAYER, N_LAYERS = 3, 5


def everywhere(value: float | None) -> tuple[float | None, ...]:
    """The same at every layer."""
    return (value,) * N_LAYERS


def known(found: Known) -> Estimates:
    """The same estimate at every layer."""
    value, low = found or (None, None)
    high = None if value is None else value + 0.01
    return Estimates(value=everywhere(value), interval=((low, high),) * N_LAYERS)


def separation(auroc: Known = (0.97, 0.9)) -> SeparationFigures:
    sizes = EffectiveSizes(positive=everywhere(40.0), negative=everywhere(40.0))
    return SeparationFigures(
        auroc=known(auroc), cohens_d=known((4.0, 3.0)), accuracy=known(auroc), effective_n=sizes
    )


def quality(
    *,
    method: str = "mean_diff",
    half: Known = (0.99, 0.95),
    n_instructions: int = 5,
    question: Known = (0.99, 0.95),
    instruction: Known = (0.95, 0.8),
    angle_upper: float | None = 10.0,
    random_p: float | None = 0.005,
    shuffled_p: float | None = 0.005,
    half_p: float | None = 0.005,
    **changes: Any,
) -> Quality:
    """Of one method; `half` is the AUROC of its vector on the half it was not made from."""
    halves = HalfFigures(**dict(separation(half)), n_questions=4, random_p=everywhere(half_p))
    norms = {"norm": everywhere(3.0), "norm_to_residual": everywhere(0.3)}
    body = {
        "n_prompts": PolarityCounts(positive=40, negative=40),
        "n_instructions": n_instructions,
        "residual_norm": everywhere(10.0),
        "mean_difference": DifferenceFigures(
            **norms,
            angle_degrees=everywhere(8.0),
            angle_upper_degrees=everywhere(angle_upper),
            split_half_cosine=known((0.9, 0.8)),
            leave_one_instruction_out_auroc=known(instruction),
            leave_one_question_out_auroc=known(question),
            random_vector_auroc=everywhere(0.7),
            shuffled_labels_auroc=everywhere(0.6),
            random_p=everywhere(random_p),
            shuffled_p=everywhere(shuffled_p),
        ),
        "methods": {
            method: MethodFigures(**norms, fitted=separation(), held_out_half=halves),
        },
        "cosine_between_methods": MethodCosines(methods=(method,), by_layer=(((1.0,),),)),
        "confounds": {},
        "reading": read(),
        "best": Best(method=method, layer=LAYER, by_method={method: LAYER}, rule="a rule"),
        **changes,
    }
    return Quality(**body)


def evaluated(
    *,
    held_out: Known = (0.97, 0.9),
    follows: Known = (0.8, 0.6),
    too_few: bool = False,
    score_within: float = 0.5,
    is_former: bool = False,
    instruction: Known = None,
) -> EvaluationFigures:
    """What the mean difference did on the evaluation questions."""
    tested = TestedFigures(
        readable=None if too_few or is_former else separation(held_out),
        separation=None if too_few else separation(held_out if is_former else (0.99, 0.95)),
        correlation=known((0.9, 0.8)),
        correlation_within=None if follows is None else known(follows),
        correlation_plain=None,
    )
    counts = EvaluationCounts(positive=20, negative=20, plain=20)
    return EvaluationFigures(
        n=counts,
        n_questions=6,
        score_within=score_within,
        left_out_instruction_auroc=None if instruction is None else known(instruction),
        methods={"mean_diff": tested},
    )


def steered(
    strength: float | None = 2.0,
    value: float | None = 50.0,
    low: float | None = 40.0,
    over_random_low: float | None = 35.0,
    *,
    method: str = "mean_diff",
) -> CausalFigures:
    """A dose-response whose rise at `strength` is `value`."""
    rise = Estimate(value=value, interval=(low, value))
    scores = known((50.0, 40.0))
    curve = CurveFigures(
        strength=(0.0, 2.0),
        n=(12, 12),
        trait=scores,
        coherence=scores,
        slope=rise,
        rise=rise,
        rise_at=strength,
    )
    over = Estimate(value=value, interval=(over_random_low, value))
    return CausalFigures(
        method=method,
        layer=LAYER,
        best_strength=2.0,
        step=1.0,
        n_questions=12,
        coherence_floor=50.0,
        coherence_good=75.0,
        strongest_coherent=2.0,
        vector=curve,
        random=curve,
        rise_over_random=over,
        n_searched=0,
        search=(),
        n_confirmed=24,
    )


def read(
    auroc: Known = (0.9, 0.8), p: float | None = 0.001, *, layer: int = 2, **changes: Any
) -> ReadingFigures:
    """What it tells apart where no instruction stands before the texts."""
    body = {
        "n": PolarityCounts(positive=60, negative=60),
        "n_read": 120,
        "n_questions": 20,
        "text_share": everywhere(0.4),
        "context_share": everywhere(0.6),
        "auroc": known(auroc),
        "cohens_d": known((2.0, 1.0)),
        "in_context_auroc": known((0.99, 0.95)),
        "instruction_auroc": known((0.95, 0.9)),
        "p": p,
        "layer": layer,
        **changes,
    }
    return ReadingFigures(**body)


def metrics(**changes: Any) -> TraitMetrics:
    """A trait with scores and counts that pass, and without vectors unless `quality` is given."""
    body = {
        "trait": "evil",
        "n_generated": 100,
        "n_kept": PolarityCounts(positive=40, negative=40),
        "contrast": 70.0,
        "contrast_interval": (60.0, 80.0),
        "magnitude": 3.0,
        "n_eval_questions": 6,
        "checks": ChecksSpec(evaluation=1, causal=1),
        "is_checked": True,
        **changes,
    }
    return TraitMetrics(**body)
