"""Assistants: policies over latent chains, one per file."""
