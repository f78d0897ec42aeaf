"""The conformance kit: what a plugin's parts must do, checked on small made-up inputs.

A plugin's own tests call it with an instance, a class, or nothing but a name::

    from dlr_core import PluginHost
    from dlr_core.testing import check_plugin

    def test_my_parts_keep_their_contracts():
        host = PluginHost()
        host.add(my_plugin, "mine")
        assert all(finding.ok for finding in check_plugin(host, "mine"))

Spaces, baselines and refiners need a frozen main model; :func:`tiny_model` writes one that suits tests::

    decoder = PluginHost.from_entry_points().create("decoder", "hf", {"model": str(tiny_model(folder))})
    check_plugin(host, "mine", decoder)

``dlr plugins check NAME`` does the same from a shell.
"""

from dlr_core.testing.kit import Finding, check_component, check_plugin
from dlr_core.testing.tiny import tiny_model

__all__ = ["Finding", "check_component", "check_plugin", "tiny_model"]
