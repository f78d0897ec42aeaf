"""Is a completion from a server the completion from here, and does the server keep its batches full?

    python benchmarks/serve_parity.py --questions 200 --clients 8

The default main model, distinct validation questions, and a chain of random latents at the policy's initial scale for
each. First everything is decoded greedily here (`hf`) and on a server (`remote`, over HTTP on the loopback), and the
token ids compared; where they part, the gap between the two tokens' logits is measured here, and below 1e-4 counted as
a near tie. Then as many clients as asked send their share of the questions, one at a time and all at once.
"""

import argparse
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dlr_cli.host import load_host
from dlr_plugins.assistants.options import PolicyOptions
from dlr_plugins.decoders.completions import CompletionsClient
from dlr_plugins.serving import wire
from dlr_plugins.serving.server import CompletionServer

from dlr_core.questions import distinct_items

NEAR_TIE = 1e-4
SCALE = PolicyOptions().initial_scale
BATCH = 50
SPACE = {"chart": "principal"}


def rows_of(done: Any) -> list[list[int]]:
    """Token ids of every completion."""
    return [ids[mask.bool()].tolist() for ids, mask in zip(done.ids_NL, done.mask_NL, strict=True)]


class Side:
    """A decoder with its latent space."""

    def __init__(self, host: Any, decoder: Any) -> None:
        self.decoder = decoder
        self.space = host.create("space", "input", SPACE, decoder=decoder)

    def ready(self, questions: list[str], latents: torch.Tensor) -> Any:
        """Prompts with their latents."""
        space = self.space
        cache = self.decoder.prefill(questions, space.anchor_ids, space.pending_ids, space.num_latents)
        return space.inject(cache, latents.to(self.decoder.device))

    @torch.no_grad()
    def answers(self, questions: list[str], latents: torch.Tensor, limit: int) -> tuple[list[list[int]], float]:
        """Greedy completions, and the seconds they took."""
        began, rows = time.perf_counter(), []
        for start in range(0, len(questions), BATCH):
            part = slice(start, start + BATCH)
            rows += rows_of(self.decoder.decode(self.ready(questions[part], latents[part]), limit))
        return rows, time.perf_counter() - began


def logit_gap(here: Side, question: str, latents: torch.Tensor, ours: list[int], theirs: list[int]) -> float:
    """How far apart the two best tokens are where two completions part."""
    same = next(n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
    cache = here.ready([question] * 2, latents.expand(2, -1, -1))
    ids = torch.tensor([ours[: same + 1], theirs[: same + 1]], device=here.decoder.device)
    with torch.no_grad():
        first, second = here.decoder.log_prob(cache, ids, torch.ones(ids.shape, device=ids.device)).tolist()
    return abs(first - second)


def at_once(
    server: CompletionServer, prompts: list[torch.Tensor], clients: int, limit: int
) -> tuple[list[list[int]], dict[str, float]]:
    """Completions asked for one at a time by several clients, and how full the batches were."""
    texts = [wire.encode(prompt) for prompt in prompts]
    before, barrier = (server.batcher.counts.steps, server.batcher.counts.tokens), threading.Barrier(clients)

    def client(number: int) -> dict[int, list[int]]:
        own = CompletionsClient(server.url, model=None, timeout=600, retries=0)
        barrier.wait()
        found = {}
        for place in range(number, len(texts), clients):
            (choice,) = own.complete([texts[place]], max_tokens=limit, temperature=0.0, seed=None, stop_ids=[])
            found[place] = choice.ids
        return found

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = {place: ids for part in pool.map(client, range(clients)) for place, ids in part.items()}
    steps, tokens = server.batcher.counts.steps - before[0], server.batcher.counts.tokens - before[1]
    how = {"clients": clients, "mean_batch": tokens / steps, "tokens": tokens, "seconds": time.perf_counter() - began}
    return [found[place] for place in range(len(texts))], how


def measure(model: str, count: int, clients: int, limit: int) -> dict[str, Any]:
    """Everything."""
    host = load_host()
    here = Side(host, host.create("decoder", "hf", {"model": model}))
    server = CompletionServer(here.decoder, name=model)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        there = Side(host, host.create("decoder", "remote", {"model": model, "url": server.url}))
        task = host.create("task", "reasoning-gym:chain_sum")
        questions = [item.question for item in distinct_items(task, "validation", count)]
        shape = (len(questions), here.space.num_latents, here.space.latent_dim)
        noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        latents = torch.tanh(SCALE * torch.from_numpy(noise))
        ours, local_seconds = here.answers(questions, latents, limit)
        theirs, remote_seconds = there.answers(questions, latents, limit)
        prompts = there.decoder.prompts(there.ready(questions, latents))
        alone, how = at_once(server, prompts, clients, limit)
    finally:
        server.stop()
        thread.join()

    def compared(rows: list[list[int]]) -> dict[str, Any]:
        parted = [n for n in range(len(questions)) if rows[n] != ours[n]]
        gaps = [logit_gap(here, questions[n], latents[n : n + 1], ours[n], rows[n]) for n in parted]
        ties = sum(gap < NEAR_TIE for gap in gaps)
        return {"identical": len(questions) - len(parted), "near_ties": ties, "different": len(parted) - ties}

    return {
        "questions": len(questions),
        "distinct": len({tuple(ids) for ids in ours}),
        "tokens": sum(map(len, ours)),
        "remote": {**compared(theirs), "seconds": remote_seconds},
        "at_once": {**compared(alone), **how},
        "local_seconds": local_seconds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--main-model", default="smollm2-135m")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--limit", type=int, default=16, help="tokens of a completion")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    asked = parser.parse_args()
    found = measure(asked.main_model, asked.questions, asked.clients, asked.limit)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    remote, together = found["remote"], found["at_once"]
    print(f"{found['questions']} questions, {found['distinct']} distinct completions, {found['tokens']} tokens")
    print(f"{'':22}{'identical':>10}{'near ties':>10}{'different':>10}{'seconds':>9}")
    print(f"{'hf here':22}{'':30}{found['local_seconds']:9.1f}")
    for label, row in (("remote, one client", remote), (f"remote, {together['clients']} clients", together)):
        print(f"{label:22}{row['identical']:10}{row['near_ties']:10}{row['different']:10}{row['seconds']:9.1f}")
    print(f"mean batch with {together['clients']} clients at once: {together['mean_batch']:.1f} rows")


if __name__ == "__main__":
    main()
