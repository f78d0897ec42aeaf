"""How different a step's chains are: within a question, between questions, and along a chain."""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


def effective_rank(rows_NE: Tensor) -> float:
    """exp of the entropy of the normalised singular values of centred rows (Roy & Vetterli 2007); 1 for equal rows."""
    values = torch.linalg.svdvals((rows_NE - rows_NE.mean(0)).float())
    if float(values.sum()) < 1e-9:
        return 1.0
    share = values / values.sum()
    return float(torch.special.entr(share).sum().exp())


def diversity(latents_BGTD: Tensor) -> dict[str, float]:
    """Measures of one step's latents in [-1, 1].

    Returns:
        ``latent_distance``: root-mean-square difference per coordinate of two chains of one question;
        ``question_distance``: the same of two questions' mean chains, which is where the question shows;
        ``effective_rank``: of all chains; ``coherence``: mean cosine of neighbouring latents of a chain.
    """
    rows, group = latents_BGTD.shape[:2]
    flat_BGE = latents_BGTD.flatten(2).float()

    def apart(points_NE: Tensor) -> Tensor:
        """E‖x−y‖² over pairs, per coordinate, is twice the unbiased variance."""
        return 2.0 * points_NE.var(-2).mean(-1)

    neighbours = cosine_similarity(latents_BGTD[:, :, 1:].float(), latents_BGTD[:, :, :-1].float(), dim=-1)
    return {
        "latent_distance": float(apart(flat_BGE).mean().sqrt()) if group > 1 else 0.0,
        "question_distance": float(apart(flat_BGE.mean(1)).sqrt()) if rows > 1 else 0.0,
        "effective_rank": effective_rank(flat_BGE.flatten(0, 1)),
        "coherence": float(neighbours.mean()) if latents_BGTD.shape[2] > 1 else 1.0,
    }
