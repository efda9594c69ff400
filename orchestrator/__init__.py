"""Drives a run: sends its jobs, watches and ends it; the private fleet; progress and metrics."""
