"""Norms over a model's width: what they are called, and where they stand on the data's way."""

from __future__ import annotations

from tasks.accounting.anatomy import Block
from tasks.accounting.lora import AFTER, Layer
from tasks.accounting.readers import read
from tasks.models import Config

BEFORE = ("input_layernorm", "post_attention_layernorm")
AROUND = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)

NORMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "bitnet"), BEFORE),
    **dict.fromkeys(("mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v3"), BEFORE),
    "olmo3": ("post_attention_layernorm", "post_feedforward_layernorm"),
    **dict.fromkeys(("gemma2", "gemma3_text"), AROUND),
}
"""Model type -> norms of a block; one more, `norm`, stands behind the last block."""


def norms(config: Config) -> list[Layer]:
    """Every norm over the width, the last one last; none where the architecture's aren't known."""
    kind = config.get("model_type", "llama")
    if kind not in NORMS:
        return []
    anatomy = read(config)
    inside = [
        Layer(f"{block.name}.{name}", anatomy.width, anatomy.width, (index, _order(block, name)))
        for index, block in enumerate(anatomy.blocks)
        for name in NORMS[kind]
    ]
    return [*inside, Layer("model.norm", anatomy.width, anatomy.width, (AFTER, -1))]


def _order(block: Block, name: str) -> int:
    """Behind what it stands: nothing, the attention, or the feed-forward layer."""
    if name == "input_layernorm":
        return -1
    if name == "post_feedforward_layernorm":
        return max(matrix.order for matrix in block.matrices)
    return max(matrix.order for matrix in block.matrices if matrix.name.startswith("self_attn."))
