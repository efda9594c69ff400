"""The stand-in language model and the embedded judge's scorer, for first runs and tests."""
