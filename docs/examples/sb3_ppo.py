"""Stable-Baselines3 on latent chains: PPO or SAC, the frozen 135M model decoding every sub-environment in one batch.

python docs/examples/sb3_ppo.py --algorithm ppo --decodes 500 --out runs/ppo
dlr eval runs/ppo
"""

import argparse
from pathlib import Path

import dlr_envs  # noqa: F401  (registers the dlr/* ids)
import gymnasium
import numpy as np
from dlr_envs.compare import as_text, compare_policy
from dlr_envs.export import export_policy
from dlr_envs.sb3 import SB3VecEnv
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import VecMonitor


def main() -> None:
    """Train for a number of decodes; print accuracy beside the controls before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=["ppo", "sac"], default="ppo")
    parser.add_argument("--decodes", type=int, default=500)
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--questions", type=int, default=100, help="test questions of the comparison")
    parser.add_argument("--main-model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, help="run folder that the policy is exported to, for dlr eval")
    args = parser.parse_args()

    space = {"name": "kv", "chart": "principal", "radius": 0.5}
    env = gymnasium.make_vec(
        "dlr/ChainSum-v0", num_envs=args.envs, num_latents=4, latent_dim=8, space=space, decoder=args.main_model
    )
    learner = VecMonitor(SB3VecEnv(env.unwrapped))
    if args.algorithm == "ppo":
        model = PPO("MlpPolicy", learner, n_steps=8, batch_size=64, policy_kwargs={"log_std_init": -3}, seed=0)
    else:
        model = SAC("MlpPolicy", learner, learning_starts=4 * args.envs, train_freq=4, gradient_steps=8, seed=0)
    rewards: list[float] = []

    def remember(local: dict, _: dict) -> bool:
        rewards.extend(info["episode"]["r"] for info in local["infos"] if "episode" in info)
        return True

    def act(observations: np.ndarray) -> np.ndarray:
        return model.predict(observations, deterministic=True)[0]

    print("before:", as_text(compare_policy(env, act, questions=args.questions)))
    model.learn(args.decodes, callback=remember)
    quarter = max(1, len(rewards) // 4)
    first, last = np.mean(rewards[:quarter]), np.mean(rewards[-quarter:])
    print(f"{args.algorithm}: {len(rewards)} decodes, {model._n_updates} updates, reward {first:.3f} -> {last:.3f}")
    print("after: ", as_text(compare_policy(env, act, questions=args.questions)))
    if args.out is not None:
        print(f"written: dlr eval {export_policy(model, args.out)}")


if __name__ == "__main__":
    main()
