"""Rewards, one per file."""
