"""Remembers: the run store, artifact keys, the Redis side. Knows nothing of models or judges."""
