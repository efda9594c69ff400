"""The card of a folder of trait vectors: what they are, how they were made, how far to trust them.

Pure: text from what a run recorded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.run_spec import RunSpec

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def model_card(spec: RunSpec, metrics: Sequence[Mapping[str, Any]], *, convention: str) -> str:
    """Markdown with the hub's header; one row per trait, whatever its verdict."""
    facts = metrics[0]["generation"]
    rows = "\n".join(_row(one) for one in metrics)
    first = metrics[0]["trait"]
    layer = metrics[0]["quality"]["best"]["layer"]
    name = public_name(spec.model.model_id)
    is_on_hub = HUB_ID.fullmatch(name) is not None
    return f"""---
{f"base_model: {name}" if is_on_hub else "# base_model: name it, the model was a local folder"}
library_name: traitlens
tags:
- steering-vectors
- activation-steering
- interpretability
---

# Trait vectors of {name}

Directions in the residual stream of `{name}` for {len(metrics)} traits, from revision
`{facts["revision"] or "unknown"}`, weights `{facts["model_hash"]}`, in {facts["dtype"]}.

| trait | verdict | kept + / - | judge's contrast | best layer | AUROC, left-out questions |
|---|---|--:|--:|--:|--:|
{rows}

The best layer is chosen by {metrics[0]["quality"]["best"]["rule"]}. `<trait>.json` holds every
figure with its interval, `<trait>.definition.json` the questions and instructions.

## Layers

Each tensor is [L+1, d_model], float32, raw (not normalized): {convention}. Positions:
`response_avg`, the mean over generated tokens without the end-of-turn token; `prompt_avg`;
`prompt_last`. Other tools count blocks, one less than these layers.

## Use

```python
from traitlens import load_vectors

v = load_vectors("{first}.safetensors")
with v.steer(model, layer={layer}, coefficient=1.0):
    out = model.generate(**inputs)
```

## How they were made

Contrastive instructions, {spec.rollouts} responses per instruction and question at temperature
{spec.sampling.temperature:g}; scored by `{spec.judge.model}`; kept at a trait score of
{spec.filter.threshold:g} or more, negatives under {100 - spec.filter.threshold:g}, and at a
coherence of {spec.filter.coherence:g} or more. Methods: {", ".join(spec.methods)}.

## Limits

A direction separates these instructions' responses to these questions, as this judge scores them.
It may hold what else differs between the sides; see the confounds in each trait's figures. It does
not carry over to other models. Steering with harmful traits makes harmful text.
"""


def public_name(model_id: str) -> str:
    """A model's name on the hub; of a local folder the last part, for a path is private."""
    name = model_id.rstrip("/")
    return name if HUB_ID.fullmatch(name) else name.rpartition("/")[2]


def _row(one: Mapping[str, Any]) -> str:
    kept, best = one["n_kept"], one["quality"]["best"]
    left_out = one["quality"]["mean_difference"].get("leave_one_question_out_auroc")
    value = left_out["value"][best["layer"]] if left_out else None
    auroc = "-" if value is None else f"{value:.3f}"
    contrast = "-" if one["contrast"] is None else f"{one['contrast']:.1f}"
    counts = f"{kept['positive']} / {kept['negative']}"
    return (
        f"| {one['trait']} | {one['verdict']} | {counts} | {contrast} | {best['layer']} | {auroc} |"
    )
