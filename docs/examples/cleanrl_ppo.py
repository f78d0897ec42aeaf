"""PPO in a single file, in the manner of CleanRL's ppo_continuous_action.py, on latent chains.

Episodes have one step: a question, a chain, its reward. So there is nothing to bootstrap, and the advantage is the
reward minus the value.

python docs/examples/cleanrl_ppo.py --decodes 512
"""

import argparse

import dlr_envs  # noqa: F401  (registers the dlr/* ids)
import gymnasium
import numpy as np
import torch
from dlr_envs.compare import as_text, compare_policy
from torch import nn
from torch.distributions import Normal


def layer(inputs: int, outputs: int, std: float = 2**0.5) -> nn.Linear:
    made = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(made.weight, std)
    nn.init.zeros_(made.bias)
    return made


class Agent(nn.Module):
    def __init__(self, observation: int, action: int, log_std: float) -> None:
        super().__init__()
        self.scale = nn.LayerNorm(observation)
        self.critic = nn.Sequential(layer(observation, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, 1, 1.0))
        self.actor = nn.Sequential(layer(observation, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, action, 0.01))
        self.log_std = nn.Parameter(torch.full((action,), log_std))

    def forward(self, observation: torch.Tensor) -> tuple[Normal, torch.Tensor]:
        read = self.scale(observation)
        return Normal(self.actor(read), self.log_std.exp()), self.critic(read)[:, 0]


def main() -> None:
    """Train for a number of decodes; print accuracy beside the controls before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decodes", type=int, default=512)
    parser.add_argument("--envs", type=int, default=32)
    parser.add_argument("--questions", type=int, default=100, help="test questions of the comparison")
    parser.add_argument("--steps", type=int, default=4, help="environment steps between updates")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--minibatches", type=int, default=4)
    parser.add_argument("--clip", type=float, default=0.2)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--log-std", type=float, default=-2.0)
    parser.add_argument("--main-model", default="smollm2-135m")
    args = parser.parse_args()

    torch.manual_seed(0)
    space = {"name": "kv", "chart": "principal", "radius": 0.5}
    env = gymnasium.make_vec(
        "dlr/ChainSum-v0", num_envs=args.envs, num_latents=4, latent_dim=8, space=space, decoder=args.main_model
    )
    agent = Agent(env.single_observation_space.shape[0], env.single_action_space.shape[0], args.log_std)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.lr, eps=1e-5)

    def act(observations: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return agent(torch.as_tensor(observations))[0].mean.numpy()

    print("before:", as_text(compare_policy(env, act, questions=args.questions)))
    observation, _ = env.reset(seed=0)
    rewards = []
    for _ in range(max(1, args.decodes // (args.envs * args.steps))):
        seen, done, earned, log_probs, values = [], [], [], [], []
        for _ in range(args.steps):
            state = torch.as_tensor(observation)
            with torch.no_grad():
                policy, value = agent(state)
                action = policy.sample()
            observation, reward, *_ = env.step(action.clamp(-1, 1).numpy())
            seen.append(state)
            done.append(action)
            earned.append(torch.as_tensor(reward, dtype=torch.float32))
            log_probs.append(policy.log_prob(action).sum(1))
            values.append(value)
            rewards.append(float(reward.mean()))
        states, actions, returns = torch.cat(seen), torch.cat(done), torch.cat(earned)
        old, advantages = torch.cat(log_probs), torch.cat(earned) - torch.cat(values)
        for _ in range(args.epochs):
            for part in torch.randperm(len(states)).chunk(args.minibatches):
                policy, value = agent(states[part])
                ratio = (policy.log_prob(actions[part]).sum(1) - old[part]).exp()
                gain = advantages[part]
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                actor = -torch.min(ratio * gain, ratio.clamp(1 - args.clip, 1 + args.clip) * gain).mean()
                loss = actor + 0.5 * (value - returns[part]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
    print(f"reward {np.mean(rewards[: len(rewards) // 4 + 1]):.3f} -> {np.mean(rewards[-len(rewards) // 4 :]):.3f}")
    print("after: ", as_text(compare_policy(env, act, questions=args.questions)))


if __name__ == "__main__":
    main()
