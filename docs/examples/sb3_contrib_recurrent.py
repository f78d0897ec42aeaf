"""sb3-contrib's RecurrentPPO on step-by-step episodes: one latent a step, an LSTM that remembers the earlier ones.

At step t the policy sees the frozen model's state after the latents so far, and can answer to their effect.

python docs/examples/sb3_contrib_recurrent.py --decodes 500
"""

import argparse

import dlr_envs  # noqa: F401  (registers the dlr/* ids)
import gymnasium
import numpy as np
from dlr_envs.compare import as_text, compare_policy
from dlr_envs.sb3 import SB3VecEnv
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import VecMonitor


class Player:
    """A recurrent policy that acts without noise and forgets when episodes begin."""

    def __init__(self, model: RecurrentPPO) -> None:
        self.model = model
        self.begin()

    def begin(self) -> None:
        """Forget."""
        self.state: tuple[np.ndarray, ...] | None = None

    def act(self, observations: np.ndarray) -> np.ndarray:
        """The next latent of every row."""
        starts = np.full(len(observations), self.state is None)
        actions, self.state = self.model.predict(observations, self.state, starts, deterministic=True)
        return actions


def main() -> None:
    """Train for a number of decodes; print accuracy beside the controls before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decodes", type=int, default=500)
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--latents", type=int, default=4, help="latents in a chain: steps of an episode")
    parser.add_argument("--questions", type=int, default=100, help="test questions of the comparison")
    parser.add_argument("--main-model", default="smollm2-135m")
    args = parser.parse_args()

    space = {"name": "kv", "chart": "principal", "radius": 0.5}
    env = gymnasium.make_vec(
        "dlr/ChainSum-v0", num_envs=args.envs, num_latents=args.latents, latent_dim=8, latents_per_step=1, space=space,
        decoder=args.main_model,
    )  # fmt: skip
    learner = VecMonitor(SB3VecEnv(env))
    steps = 8 * args.latents  # eight whole episodes of every sub-environment between updates
    model = RecurrentPPO(
        "MlpLstmPolicy", learner, n_steps=steps, batch_size=2 * steps, gamma=1.0, seed=0,
        policy_kwargs={"log_std_init": -3, "lstm_hidden_size": 64},
    )  # fmt: skip
    player, rewards = Player(model), []

    def remember(local: dict, _: dict) -> bool:
        rewards.extend(info["episode"]["r"] for info in local["infos"] if "episode" in info)
        return True

    def compared() -> str:
        return as_text(compare_policy(env, player.act, begin=player.begin, questions=args.questions))

    print("before:", compared())
    model.learn(args.decodes * args.latents, callback=remember)
    quarter = max(1, len(rewards) // 4)
    first, last = np.mean(rewards[:quarter]), np.mean(rewards[-quarter:])
    print(f"recurrent ppo: {len(rewards)} decodes, {model._n_updates} updates, reward {first:.3f} -> {last:.3f}")
    print("after: ", compared())


if __name__ == "__main__":
    main()
