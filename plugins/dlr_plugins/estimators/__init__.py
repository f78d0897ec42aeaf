"""Policy-gradient estimators, one per file."""
