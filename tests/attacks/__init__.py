"""What SECURITY.md says of each attacker, tried from outside with real processes."""
