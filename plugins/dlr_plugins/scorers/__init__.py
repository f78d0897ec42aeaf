"""Pre-decode scorers, one per file."""
