"""Versions: of the project, and of the contract between host and plugins."""

__version__ = "0.1.0"
API_VERSION = 1
"""Bumped whenever a hook or a protocol changes in a way that breaks a plugin."""
