"""An example of a plugin package for DeepLatent Reasoning."""
