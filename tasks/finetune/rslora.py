"""rsLoRA: LoRA whose update is scaled by lora_alpha / sqrt(r), so that a larger rank learns as fast as a small one."""

from __future__ import annotations

from typing import Any, ClassVar

from tasks.finetune.shared.low_rank import LowRank


class RsLora(LowRank):
    """Low-rank update scaled by lora_alpha / sqrt(r), stable at large ranks (arXiv:2312.03732)."""

    variant: ClassVar[dict[str, Any]] = {"use_rslora": True}
