"""Every part keeps its contract, and does what it is for."""

import dlr_acme.plugin as plugin
from dlr_acme.task import roman

from dlr_core import PluginHost
from dlr_core.testing import check_plugin


def host():
    made = PluginHost()
    made.add(plugin, "acme")
    return made


def test_every_part_keeps_its_contract():
    found = check_plugin(host(), "acme")
    assert len(found) == 4
    for finding in found:
        assert finding.ok, f"{finding.kind} {finding.name}: {finding.reason}"
        assert not finding.reason


def test_numerals():
    assert [roman(n) for n in (4, 9, 40, 399)] == ["IV", "IX", "XL", "CCCXCIX"]
