"""What makes a training step quick on the processor it runs on: attention, cross-entropy, compiled blocks, a heap that stays."""

LOGITS = 1 << 22
"""Logits computed at once: few enough for the last cache to hold them, enough for products at the machine's rate."""

FEWEST = 256
"""Tokens whose logits are computed at once at least, whatever the vocabulary."""

GATED = {
    "llama": "LlamaMLP",
    "mistral": "MistralMLP",
    "olmo3": "Olmo3MLP",
    "qwen2": "Qwen2MLP",
    "qwen3": "Qwen3MLP",
    "smollm3": "SmolLM3MLP",
}
"""Model type -> its class whose forward pass is `down_proj(act_fn(gate_proj(x)) * up_proj(x))`."""
