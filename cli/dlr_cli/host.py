"""The command line's plugin host: loads every plugin, and says which ones it could not."""

from dlr_cli.screen import complain
from dlr_core.host import PluginHost


def load_host() -> PluginHost:
    """All plugins; each one skipped is a line on stderr."""
    host = PluginHost.from_entry_points()
    for skipped in host.skipped:
        complain("warning", str(skipped))
    return host
