"""A main model that is made in a second: random, tiny, talkative. Nothing it says means anything.

For tests of what needs a frozen model: a plugin's own, and this project's.
"""

from pathlib import Path
from typing import Any

import torch

BOS, EOS = "<s>", "</s>"
TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def byte_tokenizer() -> Any:
    """One token per byte, two special tokens, a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS)
    made.chat_template = TEMPLATE
    return made


def special_ids(tokenizer: Any) -> dict[str, int]:
    """What a model's configuration is told of its tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def save(model: Any, tokenizer: Any, folder: Path) -> Path:
    """Write model and tokenizer as Transformers reads them."""
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_model(folder: Path, seed: int = 0) -> Path:
    """Write a random Llama of three layers into a folder, some 400 kB; the same one for the same seed.

    Its head likes digits, spaces and the end, and its layers are far from the identity, so that completions differ with
    whatever is put into them.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        **special_ids(tokenizer),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).float().eval()
    likely = tokenizer.convert_tokens_to_ids([*"0123456789", "Ġ", EOS])
    with torch.no_grad():
        for name, weight in model.model.layers.named_parameters():
            if weight.dim() == 2:  # the usual scale makes every layer nearly the identity
                weight.mul_(10.0 if "self_attn" in name else 5.0)
        model.model.embed_tokens.weight.mul_(25.0)
        head = model.lm_head.weight
        head.mul_(0.5)
        head[likely] *= 5.0
        head[tokenizer.eos_token_id] *= 0.8
    return save(model, tokenizer, folder)
