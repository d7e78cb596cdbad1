"""Stage design: which model, as a transformers config, with what it will cost."""

from __future__ import annotations

from tasks.core.schema import Choice
from tasks.design.bamba import Bamba
from tasks.design.bitnet import BitNet
from tasks.design.deepseek_v3 import DeepseekV3
from tasks.design.existing import Existing
from tasks.design.llama import Llama
from tasks.design.mamba2 import Mamba2
from tasks.design.mistral import Mistral
from tasks.design.mixtral import Mixtral
from tasks.design.mobilellm import MobileLLM
from tasks.design.olmo3 import Olmo3
from tasks.design.olmoe import Olmoe
from tasks.design.qwen2_moe import Qwen2Moe
from tasks.design.qwen3_moe import Qwen3Moe
from tasks.design.qwen3_next import Qwen3Next
from tasks.design.rwkv import Rwkv


class Design(Choice):
    """The architecture."""

    method: str = "llama"
    """Architecture family, or `existing` to take a model as it is."""
    llama: Llama = Llama()
    mobilellm: MobileLLM = MobileLLM()
    mistral: Mistral = Mistral()
    olmo3: Olmo3 = Olmo3()
    deepseek_v3: DeepseekV3 = DeepseekV3()
    mixtral: Mixtral = Mixtral()
    olmoe: Olmoe = Olmoe()
    qwen2_moe: Qwen2Moe = Qwen2Moe()
    qwen3_moe: Qwen3Moe = Qwen3Moe()
    mamba2: Mamba2 = Mamba2()
    bamba: Bamba = Bamba()
    qwen3_next: Qwen3Next = Qwen3Next()
    rwkv: Rwkv = Rwkv()
    bitnet: BitNet = BitNet()
    existing: Existing = Existing()
