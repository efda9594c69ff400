"""Asks: the `orchestrate` command. Parse, call, print."""
