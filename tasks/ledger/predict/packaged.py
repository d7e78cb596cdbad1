"""The shape of a model that lies in a Python package as a GGUF file, before it is made a model folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tasks.core.errors import UserError
from tasks.models import Config


@cache
def packaged_config(path: Path) -> Config:
    """The transformers config that `tasks.acquire.package` will write for that file, as far as predictions need it.

    Raises:
        UserError: the file doesn't say what Llama-like models say.
    """
    from gguf import GGUFReader

    reader = GGUFReader(path)

    def field(name: str) -> int:
        found = reader.get_field(f"llama.{name}")
        if found is None:
            raise UserError(f"{path.name}: doesn't say llama.{name}: only Llama-like models can be predicted")
        return int(found.contents())

    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": field("embedding_length"),
        "intermediate_size": field("feed_forward_length"),
        "num_hidden_layers": field("block_count"),
        "num_attention_heads": field("attention.head_count"),
        "num_key_value_heads": field("attention.head_count_kv"),
        "max_position_embeddings": field("context_length"),
        "vocab_size": field("vocab_size"),
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in reader.tensors),
        "dtype": "bfloat16",
    }
