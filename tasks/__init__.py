"""Carry: the Celery app, and one thin file per stage: read inputs, work, write the artifact."""
