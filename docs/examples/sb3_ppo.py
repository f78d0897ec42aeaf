"""Stable-Baselines3 on latent chains: PPO or SAC, the frozen 135M model decoding every sub-environment in one batch.

python docs/examples/sb3_ppo.py --algorithm ppo --decodes 500 --out runs/ppo
dlr eval runs/ppo

In a chart of random or principal directions a policy gradient has little to hold on to; one that an earlier run has
learned (`dlr space fit spaces/learned --from-run RUN`) is loaded with `--space spaces/learned`.
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
    parser.add_argument("--space", type=Path, help="folder of a saved space; principal directions if not given")
    parser.add_argument("--log-std", type=float, default=-3.0, help="of PPO's policy when it begins")
    parser.add_argument("--rate", type=float, default=3e-4, help="learning rate")
    parser.add_argument("--out", type=Path, help="run folder that the policy is exported to, for dlr eval")
    args = parser.parse_args()

    fixed = {"space": {"name": "kv", "chart": "principal", "radius": 0.5}, "num_latents": 4, "latent_dim": 8}
    chosen = fixed if args.space is None else {"space": str(args.space)}
    env = gymnasium.make_vec("dlr/ChainSum-v0", num_envs=args.envs, decoder=args.main_model, **chosen)
    learner = VecMonitor(SB3VecEnv(env.unwrapped))
    common = {"learning_rate": args.rate, "seed": 0}
    if args.algorithm == "ppo":
        policy = {"log_std_init": args.log_std}
        model = PPO("MlpPolicy", learner, n_steps=8, batch_size=64, policy_kwargs=policy, **common)
    else:
        model = SAC("MlpPolicy", learner, learning_starts=4 * args.envs, train_freq=4, gradient_steps=8, **common)
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
