"""Decides: traits, plan, readiness, score rules, thresholds, verdicts. Pure: no I/O, no clock."""
