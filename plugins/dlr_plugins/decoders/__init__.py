"""Decoder backends: frozen main models."""
