"""`python -m cli`: the same as `orchestrate`."""

from __future__ import annotations

from trait_vector_orchestrator import main

main()
