"""What makes a training step quick on the processor it runs on: attention, cross-entropy, compiled blocks, a heap that stays."""

LOGITS = 1 << 22
"""Logits computed at once: few enough for the last cache to hold them, enough for products at the machine's rate."""

FEWEST = 256
"""Tokens whose logits are computed at once at least, whatever the vocabulary."""
