"""Sentence templates, one voice per trait and pole; data only."""
