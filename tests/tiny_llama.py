"""A Llama of some 100,000 random parameters with a byte-level BPE tokenizer trained on a few sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXTS = [
    "def add(one, two):\n    return one + two  # 12345\n",
    "The quick brown fox doesn't jump over the lazy dog; naïve Ωμέγα, 日本語, don't they'll.\n" * 3,
    "class Stack:\n\tdef push(self, item):\n\t\tself.items.append(item)\n\n\n",
]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(pre: Any = None, vocab_size: int = 420) -> Any:
    """A fast tokenizer; `pre` is its pre-tokenizer, GPT-2's where None."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre or pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS * 4,
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=SPECIAL[0], eos_token=SPECIAL[2], pad_token=SPECIAL[0], unk_token=SPECIAL[0]
    )
    fast.chat_template = TEMPLATE
    return fast


def model(**changes: Any) -> Any:
    """A Llama with the shape below, or as changed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {
        "vocab_size": 432,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "initializer_range": 0.25,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**{**shape, **changes})).eval()


def save(folder: Path, pre: Any = None, **changes: Any) -> Path:
    """A complete model folder."""
    from tasks.models.load import save_model

    save_model(model(**changes), tokenizer(pre), folder)
    return folder
