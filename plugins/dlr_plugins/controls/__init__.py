"""Controls: what trained latents are compared with, one per file."""
