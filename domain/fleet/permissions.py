"""What a process does for whoever may write to the broker, or made the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Permissions:
    """Where a worker opens runs, and where the judge's key goes; see SECURITY.md."""

    only_runs_below: str | None = None
    # endpoints that the judge's key may be sent to; empty for any that a run names
    only_judges_at: tuple[str, ...] = ()
    allow_remote_code: bool = False

    def refusal_of_judge(self, url: str) -> str:
        """Why the judge at a URL may not be asked with our key; empty where it may."""
        if not self.only_judges_at or url in ("embedded", *self.only_judges_at):
            return ""
        return (
            f"judges at {', '.join(self.only_judges_at)} are asked only, not {url}: set another "
            "ORCHESTRATE_ONLY_JUDGES_AT if the key may go there"
        )


def permissions(environment: Mapping[str, str]) -> Permissions:
    """The permissions of a process with that environment."""
    judges = environment.get("ORCHESTRATE_ONLY_JUDGES_AT", "")
    return Permissions(
        only_runs_below=environment.get("ORCHESTRATE_ONLY_RUNS_BELOW") or None,
        only_judges_at=tuple(judges.replace(",", " ").split()),
        allow_remote_code=environment.get("ORCHESTRATE_ALLOW_REMOTE_CODE") in ("1", "true", "yes"),
    )
