"""Baselines: other ways to adapt the frozen model, taught gold answers."""
