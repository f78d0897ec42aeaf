"""A request that is not answered, and why."""

from dlr_core.errors import DLRError


class Refusal(DLRError, ValueError):
    """One sentence for whoever asked, and the HTTP status that it goes with."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status
