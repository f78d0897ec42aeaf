"""The control for every scorer."""

from dlr_plugins.scorers.none import NoScorer


class RandomScorer(NoScorer):
    """Keeps K of G chains uniformly at random: equal predictions make equal inclusion probabilities."""

    decodes_all = False
