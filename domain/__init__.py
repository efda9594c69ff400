"""Rules: what a run, a trait, a score and a verdict are, without I/O, clock or network."""
