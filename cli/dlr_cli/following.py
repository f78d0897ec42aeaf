"""A rank that is not the first: it trains along, and leaves folder, screen and evaluation to the first one."""

from pathlib import Path

from dlr_cli.stopping import Stop
from dlr_core.checkpoint import restore
from dlr_core.checkpoints import has_checkpoint, newest_intact
from dlr_core.config import RunConfig
from dlr_core.errors import RankError
from dlr_core.host import PluginHost
from dlr_core.pipeline import build_trainer
from dlr_core.ranks import Ranks
from dlr_core.trainer import Trainer

WHAT = "main model"


def follow(config: RunConfig, host: PluginHost, ranks: Ranks) -> None:
    """Make the steps that the first rank makes in :func:`dlr_cli.session.execute`, until it ends the training."""
    with ranks.agreeing():
        trainer = build_trainer(config, host, ranks)
        digest = trainer.env.engine.decoder.fingerprint()
    ranks.same(WHAT, digest)
    with ranks.agreeing():
        pass  # the first rank finds out where the run was left
    checkpoint, ended = ranks.tell((Path(), False))
    with ranks.agreeing():
        if checkpoint is not None:
            restore(trainer, checkpoint)
    if ended:
        ranks.leave()
        return
    stop = Stop(ranks)
    try:
        for _ in trainer.run():
            if trainer.updates.stuck:
                raise RankError("nothing is finite any more", told=True)
            if ranks.any(stop.asked):
                break
        part(trainer, ranks)
    finally:
        stop.restore()


def lead(ranks: Ranks, run: Path | None, ended: bool) -> None:
    """Tell the others which checkpoint they go on from, as the first rank does, and whether there is nothing to train.

    Args:
        ranks: all of them.
        run: the run's folder, if it is gone on with.
        ended: whether it has come to its end.
    """
    if ranks.size == 1:
        return
    ranks.tell((newest_intact(run)[0].absolute() if run is not None and has_checkpoint(run) else None, ended))
    with ranks.agreeing():
        pass  # the others restore it
    if ended:
        ranks.leave()


def part(trainer: Trainer, ranks: Ranks) -> None:
    """End the training: the ranks compare their frozen models once more, and all but the first one end.

    Raises:
        ModelError: one of them has changed.
    """
    if ranks.size > 1:
        ranks.same(WHAT, trainer.env.engine.decoder.fingerprint())
        ranks.leave()
