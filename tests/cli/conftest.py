"""The program, run in the process of the tests."""

import sys

import pytest
from dlr_cli.app import main


@pytest.fixture
def dlr(monkeypatch, capsys):
    """Run the program in this process: exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dlr", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out = capsys.readouterr()
        return left.value.code or 0, out.out, out.err

    return run
