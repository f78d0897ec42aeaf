"""PPO from TorchRL's own parts on latent chains: GymWrapper, Collector, GAE and ClipPPOLoss.

TorchRL resets ended episodes itself, so the vector environment is made with autoreset disabled. (With SAME_STEP
autoreset, GymWrapper turns every entry of `info` into a tensor, and ours holds questions and completions as text.)

python docs/examples/torchrl_ppo.py --decodes 512
"""

import argparse

import dlr_envs  # noqa: F401  (registers the dlr/* ids)
import gymnasium
import numpy as np
import torch
from dlr_envs.compare import as_text, compare_policy
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import ExplorationType, GymWrapper, set_exploration_type
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE


def network(inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers over standardised states; the last layer starts near zero."""
    last = nn.Linear(64, outputs)
    nn.init.orthogonal_(last.weight, 0.01)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), last)


def main() -> None:
    """Train for a number of decodes; print accuracy beside the controls before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decodes", type=int, default=512)
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--questions", type=int, default=100, help="test questions of the comparison")
    parser.add_argument("--steps", type=int, default=8, help="environment steps between updates")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--minibatches", type=int, default=4)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--log-std", type=float, default=-2.0)
    parser.add_argument("--main-model", default="smollm2-135m")
    args = parser.parse_args()

    torch.manual_seed(0)
    space = {"name": "kv", "chart": "principal", "radius": 0.5}
    env = gymnasium.make_vec(
        "dlr/ChainSum-v0", num_envs=args.envs, num_latents=4, latent_dim=8, space=space, decoder=args.main_model,
        autoreset_mode="Disabled",
    )  # fmt: skip
    states, width = env.single_observation_space.shape[0], env.single_action_space.shape[0]
    spread = NormalParamExtractor(scale_mapping=f"biased_softplus_{np.exp(args.log_std)}")
    head = TensorDictModule(nn.Sequential(network(states, 2 * width), spread), ["observation"], ["loc", "scale"])
    actor = ProbabilisticActor(
        head, in_keys=["loc", "scale"], distribution_class=TanhNormal, return_log_prob=True,
        default_interaction_type=ExplorationType.RANDOM,
    )  # fmt: skip
    critic = ValueOperator(network(states, 1), in_keys=["observation"])
    advantage = GAE(gamma=1.0, lmbda=1.0, value_network=critic)
    loss = ClipPPOLoss(actor, critic, clip_epsilon=0.2, entropy_bonus=False, normalize_advantage=True)
    optimizer = torch.optim.Adam(loss.parameters(), lr=args.lr, eps=1e-5)

    def act(observations: np.ndarray) -> np.ndarray:
        shown = TensorDict({"observation": torch.as_tensor(observations)}, [len(observations)])
        with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
            return actor(shown)["action"].numpy()

    print("before:", as_text(compare_policy(env, act, questions=args.questions)))
    batch = args.envs * args.steps
    updates = max(1, args.decodes // batch)
    collector = Collector(
        GymWrapper(env), actor, frames_per_batch=batch, total_frames=updates * batch,
        auto_register_policy_transforms=False,
    )  # fmt: skip
    collector.set_seed(0)
    rewards = []
    for data in collector:
        rewards += data["next", "reward"].mean(0)[:, 0].tolist()
        with torch.no_grad():
            data = advantage(data).reshape(-1)
        for _ in range(args.epochs):
            for part in torch.randperm(batch).chunk(args.minibatches):
                found = loss(data[part])
                optimizer.zero_grad()
                (found["loss_objective"] + found["loss_critic"]).backward()
                nn.utils.clip_grad_norm_(loss.parameters(), 0.5)
                optimizer.step()
    collector.shutdown(close_env=False)
    print(f"reward {np.mean(rewards[: len(rewards) // 4 + 1]):.3f} -> {np.mean(rewards[-len(rewards) // 4 :]):.3f}")
    print("after: ", as_text(compare_policy(env, act, questions=args.questions)))


if __name__ == "__main__":
    main()
