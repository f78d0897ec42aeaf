"""Loggers: told of a run step by step, one per file."""
