"""Tasks: questions with a verifier."""
