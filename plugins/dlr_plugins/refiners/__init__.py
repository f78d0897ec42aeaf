"""Refiners, one per file."""
