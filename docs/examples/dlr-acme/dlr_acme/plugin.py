"""What this package adds, hook by hook."""

from dlr_acme.assistant import Linear
from dlr_acme.contrastive import Margin
from dlr_acme.reward import Brief
from dlr_acme.task import Roman
from dlr_core import hookimpl

DLR_API_VERSION = 1


@hookimpl
def dlr_register_reward(register):
    """A reward for short answers."""
    register("acme-brief", Brief)


@hookimpl
def dlr_register_contrastive(register):
    """A margin between right and wrong chains."""
    register("acme-margin", Margin)


@hookimpl
def dlr_register_assistant(register):
    """The smallest assistant that reads the question."""
    register("acme-linear", Linear)


@hookimpl
def dlr_register_task(register):
    """Roman numerals."""
    register("acme-roman", Roman)
