"""What assistants that do not read their own latents have in common: a whole chain is one Gaussian draw."""

from torch import Tensor, nn

from dlr_core.density import TanhGaussian
from dlr_core.protocols import ChainBatch


class AtOnce(nn.Module):
    """Latents are independent given the question, so a chain is drawn from its policy in one go."""

    def sample(self, states_BSH: Tensor, mask_BS: Tensor, noise_NTD: Tensor) -> ChainBatch:
        """Draw N chains around the means."""
        policy = self.evaluate(states_BSH, mask_BS, noise_NTD)
        return ChainBatch(noise_NTD, policy, policy.mean + policy.log_std.exp() * noise_NTD)

    def evaluate(self, states_BSH: Tensor, mask_BS: Tensor, pre_NTD: Tensor) -> TanhGaussian:
        """The policy of N chains; of given latents it only counts the rows."""
        raise NotImplementedError
