"""sb3-contrib's TQC (truncated quantile critics, Kuznetsov et al. 2020) on latent chains, one-step episodes.

python docs/examples/sb3_contrib_tqc.py --decodes 500
"""

import argparse

import dlr_envs  # noqa: F401  (registers the dlr/* ids)
import gymnasium
import numpy as np
from dlr_envs.compare import as_text, compare_policy
from dlr_envs.sb3 import SB3VecEnv
from dlr_envs.wrappers import VectorScaleObservation
from sb3_contrib import TQC
from stable_baselines3.common.vec_env import VecMonitor


def main() -> None:
    """Train for a number of decodes; print accuracy beside the controls before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decodes", type=int, default=500)
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--questions", type=int, default=100, help="test questions of the comparison")
    parser.add_argument("--main-model", default="smollm2-135m")
    args = parser.parse_args()

    space = {"name": "kv", "chart": "principal", "radius": 0.5}
    env = gymnasium.make_vec(
        "dlr/ChainSum-v0", num_envs=args.envs, num_latents=4, latent_dim=8, space=space, decoder=args.main_model
    )
    scaled = VectorScaleObservation(env)
    learner = VecMonitor(SB3VecEnv(scaled))
    model = TQC(
        "MlpPolicy", learner, learning_starts=4 * args.envs, train_freq=4, gradient_steps=8,
        top_quantiles_to_drop_per_net=2, policy_kwargs={"n_critics": 2, "log_std_init": -3}, seed=0,
    )  # fmt: skip
    rewards: list[float] = []

    def remember(local: dict, _: dict) -> bool:
        rewards.extend(info["episode"]["r"] for info in local["infos"] if "episode" in info)
        return True

    def act(observations: np.ndarray) -> np.ndarray:
        return model.predict(scaled.scale(observations), deterministic=True)[0]

    print("before:", as_text(compare_policy(env, act, questions=args.questions)))
    model.learn(args.decodes, callback=remember)
    quarter = max(1, len(rewards) // 4)
    first, last = np.mean(rewards[:quarter]), np.mean(rewards[-quarter:])
    print(f"tqc: {len(rewards)} decodes, {model._n_updates} updates, reward {first:.3f} -> {last:.3f}")
    print("after: ", as_text(compare_policy(env, act, questions=args.questions)))


if __name__ == "__main__":
    main()
