"""Refusals: a worker that cannot serve a run says so, and the run goes on with the others.

Pure. Where refusals are kept is storage/refusals.py, who says them tasks/refusals.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape

from orchestrator.fleet import Demand, WorkerCard


@dataclass(frozen=True)
class Refusal:
    """What a worker said when it met a run that it cannot serve."""

    worker: str
    reason: str

    @property
    def host(self) -> str:
        """The machine it runs on."""
        return self.worker.partition("@")[2]


def others_left(
    kind: str, model: str, *, workers: Iterable[WorkerCard], refused: Collection[str]
) -> list[str]:
    """The workers of a kind that may still serve a run of that model; without any, a refusal is
    the run's failure. An empty model stands for one that is not known."""
    return [
        card.name
        for card in workers
        if card.kind == kind
        and not card.draining
        and card.name not in refused
        and (not model or _fits(model, card.models))
    ]


def reasons(refusals: Iterable[Refusal]) -> str:
    """Why nobody serves a run, with the hosts that said so: `on gpu1, gpu2: no such folder`."""
    hosts: dict[str, list[str]] = {}
    for one in refusals:
        said_by = hosts.setdefault(one.reason, [])
        if one.host not in said_by:
            said_by.append(one.host)
    return "; ".join(f"on {', '.join(sorted(names))}: {reason}" for reason, names in hosts.items())


def models_left(card: WorkerCard, demands: Sequence[Demand]) -> tuple[str, ...] | None:
    """The patterns of the models that a worker may serve, without those of which it refused every
    run; None when nothing that is wanted is left for it."""
    open_models = {one.run.model for one in demands if card.name not in one.refused_by}
    if all(one.run.model in open_models for one in demands):
        return card.models
    return tuple(escape(m) for m in sorted(open_models) if _fits(m, card.models)) or None


def _fits(model: str, patterns: Collection[str]) -> bool:
    return not patterns or any(fnmatchcase(model, one) for one in patterns)
