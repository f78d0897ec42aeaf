"""Evolution strategies in plain numpy (Salimans et al. 2017) on latent chains: no gradient of anything.

A static policy: one chain for all questions, moved along the directions that earned more. It needs nothing of the
environment but `reset` and `step`.

python docs/examples/evolution_strategies.py --decodes 512
"""

import argparse

import dlr_envs  # noqa: F401  (registers the dlr/* ids)
import gymnasium
import numpy as np
from dlr_envs.compare import as_text, compare_policy


def main() -> None:
    """Train for a number of decodes; print accuracy beside the controls before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decodes", type=int, default=512)
    parser.add_argument("--envs", type=int, default=32, help="population: half of it mirrors the other half")
    parser.add_argument("--questions", type=int, default=100, help="test questions of the comparison")
    parser.add_argument("--sigma", type=float, default=0.1)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--main-model", default="smollm2-135m")
    args = parser.parse_args()

    space = {"name": "kv", "chart": "principal", "radius": 0.5}
    env = gymnasium.make_vec(
        "dlr/ChainSum-v0", num_envs=args.envs, num_latents=4, latent_dim=8, space=space, decoder=args.main_model
    )
    rng = np.random.default_rng(0)
    mean = np.zeros(env.single_action_space.shape[0])

    def act(observations: np.ndarray) -> np.ndarray:
        return np.tile(mean, (len(observations), 1))

    print("before:", as_text(compare_policy(env, act, questions=args.questions)))
    env.reset(seed=0, options={"group_size": args.envs})  # one question for the whole population
    rewards = []
    for _ in range(max(1, args.decodes // args.envs)):
        half = rng.standard_normal((args.envs // 2, len(mean)))
        noise = np.concatenate([half, -half])
        _, reward, *_ = env.step((mean + args.sigma * noise).clip(-1, 1).astype(np.float32))
        rewards.append(reward.mean())
        if reward.std() > 0:
            mean = mean + args.lr * ((reward - reward.mean()) / reward.std()) @ noise / args.envs
    print(f"reward {np.mean(rewards[: len(rewards) // 4 + 1]):.3f} -> {np.mean(rewards[-len(rewards) // 4 :]):.3f}")
    print("after: ", as_text(compare_policy(env, act, questions=args.questions)))


if __name__ == "__main__":
    main()
