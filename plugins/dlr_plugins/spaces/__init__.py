"""Latent spaces, one per file."""
