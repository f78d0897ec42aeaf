"""TRL's GRPOTrainer on an environment's task: the same training questions, prompt, token limit, batch and reward.

What differs is TRL's own: it moves weights (all of them, or LoRA's) and explores by sampling tokens. Where TRL leaves a
choice the kinder one is taken for it: no gradient checkpointing where time is measured, TRL's own default (with it)
where memory is; no reference model; no warm-up of learning rates, as its steps are few; rates that fall by the clock as
ours do. TRL is as it is published: on a CPU its fused head scores prompts too, a fifth of its FLOPs, and much memory.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import other_tasks
import torch
from curves import Prober
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import GenerationConfig, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from dlr_core.config import RunConfig
from dlr_core.errors import ConfigError
from dlr_core.host import PluginHost
from dlr_core.pipeline import make_engine
from dlr_core.questions import distinct_items
from dlr_core.records import Completions, Item, Sample
from dlr_core.schedule import CLOCKS, Schedule

SETTINGS = ("full", "lora")
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
FOREVER = 10**6
"""Steps that no run reaches: the clock ends it."""


class Tally:
    """What the trained model computes, counted as :mod:`dlr_core.cost` counts: two FLOPs per weight and position.

    Padding is counted, attention's own products are not. Backward costs a frozen matrix once the forward, for the
    activations; a trained one twice, for its weights too. On a CPU TRL's fused head works on every position of a
    training pass, and once more in the backward pass; on a GPU on the completions' alone.
    """

    def __init__(self, decoder: Any, setting: str, limit: int) -> None:
        model = decoder.model
        self.per_token, self.counting, self.completions = decoder.flops_per_token, True, 0
        adapters = [p.numel() for name, p in model.named_parameters() if "lora_" in name]
        self.adapters = 2 * sum(adapters)
        self.back = 2 if setting == "full" else 1
        self.limit, self.flops = limit, 0
        decoder.body.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self.counting:
            return
        ids: Tensor = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        positions, training = ids.numel(), torch.is_grad_enabled()
        logits = len(ids)  # while completions are sampled: the last position's
        if training:
            logits = positions - len(ids) if ids.device.type == "cpu" else len(ids) * self.limit
        self.flops += positions * (self.per_token.body + self.adapters) + logits * self.per_token.head
        if training:
            self.flops += positions * (self.back * self.per_token.body + 2 * self.adapters)
            self.flops += logits * (1 + self.back) * self.per_token.head


def engine_to_train(config: RunConfig, host: PluginHost) -> Any:
    """The engine of a run's environment, with the model as Transformers loads it.

    Ours multiplies from packed copies of frozen weights, which training would not move, and may keep them in bfloat16,
    in which steps of TRL's size vanish; TRL keeps float32, and computes in bfloat16 on a GPU.
    """
    decoder = config.decoder.model_copy(update={"packed": False, "dtype": "float32"})
    return make_engine(config.model_copy(update={"decoder": decoder}), host)


def prompt_text(decoder: Any, question: str, anchor: str) -> str:
    """A question in the chat template and the anchor's text, as TRL is given it.

    Raises:
        ConfigError: TRL would make other token ids of it than our prompts have.
    """
    tokenizer = decoder.tokenizer
    text = question + "\n"
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    text += anchor
    if list(tokenizer(text=text)["input_ids"]) != decoder.prompt_ids(question) + decoder.encode(anchor):
        raise ConfigError(f"the prompt of {question!r} has other token ids as text: nothing to compare")
    return str(text)


def judged(engine: Any, items: Sequence[Item], texts: Sequence[str], rows: Sequence[Sequence[int]]) -> list[Sample]:
    """The task's verdict on completions, given as texts and token ids (the end token included)."""
    ends = set(engine.decoder.end_ids.tolist())
    mask_NL = torch.zeros(len(rows), max(map(len, rows)))
    for number, row in enumerate(rows):
        mask_NL[number, : len(row)] = 1.0
    ended_N = torch.tensor([bool(row) and row[-1] in ends for row in rows])
    samples: list[Sample] = engine.judge(items, Completions(mask_NL.long(), mask_NL, list(texts), ended_N))
    return samples


class Answering:
    """Greedy completions of the model as it is now, by Transformers' ``generate``."""

    def __init__(self, engine: Any, model: Any, anchor: str, batch: int = 64) -> None:
        self.engine, self.model, self.anchor, self.batch = engine, model, anchor, batch

    @torch.no_grad()
    def __call__(self, items: Sequence[Item]) -> list[Sample]:
        """One sample a question."""
        was = self.model.training
        self.model.eval()
        found = []
        for start in range(0, len(items), self.batch):
            found += self._answer(items[start : start + self.batch])
        self.model.train(was)
        return found

    def _answer(self, items: Sequence[Item]) -> list[Sample]:
        decoder = self.engine.decoder
        ends = decoder.end_ids.tolist()
        rows = [decoder.prompt_ids(item.question) + decoder.encode(self.anchor) for item in items]
        width = max(map(len, rows))
        ids = torch.tensor([[ends[0]] * (width - len(row)) + row for row in rows], device=decoder.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=decoder.device)
        settings = GenerationConfig(
            do_sample=False, max_new_tokens=self.engine.max_new_tokens, eos_token_id=ends, pad_token_id=ends[0],
            repetition_penalty=1.0, no_repeat_ngram_size=0, disable_compile=True,
        )  # fmt: skip
        out = self.model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        completions = []
        for row in out[:, width:].tolist():
            stop = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
            completions.append(row[:stop])
        texts = decoder.tokenizer.batch_decode(completions, skip_special_tokens=True)
        return judged(self.engine, items, texts, completions)


class Watch(TrainerCallback):
    """Keeps the clock, asks held-out questions while it stands still, and ends the run."""

    def __init__(self, config: RunConfig, tally: Tally, prober: Prober | None, answer: Answering) -> None:
        optim = config.optim.model_copy(update={"warmup": 0})
        self.schedule = Schedule(optim, config.steps, config.minutes)
        self.clock = CLOCKS[config.clock]
        self.tally, self.prober, self.answer = tally, prober, answer
        self.began: float | None = None
        self.waited = 0.0

    @property
    def seconds(self) -> float:
        """Of training."""
        return 0.0 if self.began is None else self.clock() - self.began - self.waited

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask before anything is learned, then start the clock."""
        self._probe(0, 0.0)
        self.began, self.waited = self.clock(), 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask if a share of the run is over; stop at its end."""
        seconds = self.seconds
        progress = self.schedule.progress(state.global_step, seconds)
        if self.prober is not None and self.prober.due(progress):
            self._probe(state.global_step, seconds)
        control.should_training_stop = control.should_training_stop or progress >= 1

    def _probe(self, steps: int, seconds: float) -> None:
        if self.prober is None:
            return
        began = self.clock()
        self.tally.counting = False
        flops, completions = self.tally.flops, self.tally.completions
        self.prober.take(self.answer, seconds=seconds, steps=steps, flops=flops, completions=completions)
        self.tally.counting = True
        self.waited += self.clock() - began


def make_trainer(
    engine: Any, config: RunConfig, setting: str, rate: float, folder: Path, *, prober: Prober | None = None,
    checkpointing: bool = False, micro: int | None = None,
) -> tuple[GRPOTrainer, Tally, Answering]:  # fmt: skip
    """A trainer with an environment's questions, and with a run's batch, limits, seed, token limit and anchor.

    The decoder's model is trained in place: nothing else may use it afterwards.

    Args:
        engine: whose task, reward, token limit and main model are used; :func:`engine_to_train` makes one.
        config: a run's settings.
        setting: ``full`` or ``lora``.
        rate: learning rate.
        folder: where TRL may write.
        prober: asks held-out questions on the way.
        checkpointing: whether activations are computed again in the backward pass, which saves memory.
        micro: completions that are learned from at once, a divisor of the batch; gradients of several are added up,
            which saves memory too. All of a step's if None.

    Raises:
        ConfigError: no such setting, or a model whose layers do not multiply by their own weights.
    """
    if setting not in SETTINGS:
        raise ConfigError(f"expected a setting of {', '.join(SETTINGS)}, got {setting!r}")
    decoder, task = engine.decoder, engine.task
    if decoder.packed:
        raise ConfigError("TRL would train weights that the model does not multiply by: set decoder.packed=false")
    anchor = str(config.space.options["anchor"])
    torch.manual_seed(config.seed)
    model = decoder.model
    model.requires_grad_(setting == "full")
    if setting == "lora":
        model = get_peft_model(model, LoraConfig(**LORA))
    tally, answer = Tally(decoder, setting, engine.max_new_tokens), Answering(engine, model, anchor)
    watch = Watch(config, tally, prober, answer)

    def reward(completions: list[str], completion_ids: list[list[int]], index: list[int], **_: Any) -> list[float]:
        tally.completions += len(completions)
        items = [task.item("train", number) for number in index]
        return [float(engine.reward(sample)) for sample in judged(engine, items, completions, completion_ids)]

    items = [task.item("train", number) for number in range(task.size("train"))]
    prompts = [prompt_text(decoder, item.question, anchor) for item in items]
    data = Dataset.from_dict({"prompt": prompts, "index": [item.index for item in items]})
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)

    def factor(step: int) -> float:
        return watch.schedule.rate(step, watch.schedule.progress(step, watch.seconds))

    batch = config.batch.questions * config.decodes
    micro = micro or batch
    settings = GRPOConfig(
        output_dir=str(folder), seed=config.seed, learning_rate=rate, max_steps=config.steps or FOREVER,
        per_device_train_batch_size=micro, gradient_accumulation_steps=batch // micro, num_generations=config.decodes,
        max_completion_length=engine.max_new_tokens, temperature=1.0, max_grad_norm=config.optim.clip,
        gradient_checkpointing=checkpointing, use_cpu=decoder.device.type == "cpu",
        bf16=decoder.device.type == "cuda", disable_dropout=True, dataloader_pin_memory=False, save_strategy="no",
        logging_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model, reward_funcs=[reward], args=settings, train_dataset=data, processing_class=decoder.tokenizer,
        callbacks=[watch], optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)),
    )  # fmt: skip
    return trainer, tally, answer


def learn(
    config: RunConfig, host: PluginHost, setting: str, rate: float, folder: Path, *, questions: int, probes: int
) -> dict[str, object]:
    """Train to the settings' limits; what :func:`latents.learn` returns."""
    engine = engine_to_train(config, host)
    prober = Prober(distinct_items(engine.task, "test", questions), probes)
    trainer, tally, answer = make_trainer(engine, config, setting, rate, folder, prober=prober)

    plain, prompted = (partial(Answering, model=answer.model, anchor=anchor) for anchor in ("", answer.anchor))
    tally.counting = False
    before = other_tasks.ask(engine, host, {other_tasks.BEFORE: plain, other_tasks.PROMPT: prompted})
    tally.counting = True
    trainer.train()
    tally.counting = False
    chosen = answer(distinct_items(engine.task, "validation", questions))
    with answer.model.disable_adapter() if setting == "lora" else nullcontext():  # all weights stay where they are
        off = other_tasks.ask(engine, host, {other_tasks.OFF: plain})
    on = other_tasks.ask(engine, host, {other_tasks.ON: prompted})
    return {
        "curve": prober.curve,
        "right": prober.right,
        "validation": sum(sample.correct for sample in chosen) / max(len(chosen), 1),
        "gold": False,
        "others": other_tasks.together(before, off, on),
    }
