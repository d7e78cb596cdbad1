"""Dense decoder in the manner of Llama, with MHA, GQA or MQA by its number of key-value heads."""

from __future__ import annotations

from typing import ClassVar

from tasks.design.decoder import Decoder


class Llama(Decoder):
    """Dense decoder: RMSNorm, rotary positions, SwiGLU, grouped-query attention (arXiv:2302.13971)."""

    model_type: ClassVar[str] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"
