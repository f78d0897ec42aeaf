"""The command line's plugin host: loads every plugin, and says which ones it could not."""

import sys

from dlr_core.host import PluginHost


def load_host() -> PluginHost:
    """All plugins; each one skipped is a line on stderr."""
    host = PluginHost.from_entry_points()
    for skipped in host.skipped:
        print(f"warning: {skipped}", file=sys.stderr)
    return host
