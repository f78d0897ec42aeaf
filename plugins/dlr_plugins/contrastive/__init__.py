"""Contrastive objectives, one per file."""
