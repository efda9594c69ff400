"""Where a trait vector came from: the facts that travel inside its file.

Knows nothing about tensors or file formats, only how the facts become strings and come back.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from traitlens.layers import LAYER_CONVENTION


@dataclass(frozen=True)
class Provenance:
    """The facts about one trait vector.

    `counts` are kept responses by polarity, `thresholds` the cut-offs that kept them,
    `residual_norms` the mean norm of responses' averaged activations at each layer [L+1] (empty
    when not measured; steering in units of the residual needs it). `model_hash` is
    `traitlens.model_hash(model)`, empty when not recorded. `extra` takes anything JSON can hold.
    """

    trait: str
    method: str
    model_id: str = ""
    model_revision: str = ""
    model_hash: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    residual_norms: tuple[float, ...] = ()
    layer_convention: str = LAYER_CONVENTION
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_metadata(self) -> dict[str, str]:
        """One JSON string per fact, as safetensors wants its metadata."""
        return {name: json.dumps(value, sort_keys=True) for name, value in asdict(self).items()}


def provenance_from_metadata(metadata: Mapping[str, str]) -> Provenance:
    """Read back what `Provenance.to_metadata` wrote; unknown keys are ignored."""
    known = {f.name for f in fields(Provenance)}
    facts = {name: json.loads(text) for name, text in metadata.items() if name in known}
    facts["residual_norms"] = tuple(facts.get("residual_norms", ()))
    return Provenance(**{"trait": "", "method": ""} | facts)
