"""What adapters beside LoRA refuse, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.design.existing import Existing
from tasks.finetune import Finetune
from tasks.finetune.boft import Boft
from tasks.finetune.bottleneck import Bottleneck
from tasks.finetune.fourierft import FourierFT
from tasks.finetune.ia3 import Ia3
from tasks.finetune.layer_norm import LayerNorm
from tasks.finetune.llama_adapter import LlamaAdapter
from tasks.finetune.oft import Oft
from tasks.finetune.p_tuning import PTuning
from tasks.finetune.prefix_tuning import PrefixTuning
from tasks.finetune.prompt_tuning import PromptTuning
from tasks.finetune.technique import FinetuneTechnique
from tasks.finetune.vera import Vera
from tasks.models.adapter import mark_unmerged
from tasks.models.load import load_model, new_model
from tests.models import begun, config

MAMBA = {"model_type": "mamba2", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 400, "num_heads": 4}
MAMBA |= {"head_dim": 32, "expand": 2, "state_size": 16, "n_groups": 1, "conv_kernel": 4, "chunk_size": 32}

REFUSED: list[tuple[FinetuneTechnique, dict[str, Any], str]] = [
    (Vera(target_modules=["nothing"]), {}, r"finetune\.vera\.target_modules: found \['nothing'\].*q_proj"),
    (Ia3(target_modules=["k_proj"]), {}, r"feedforward_modules: found down_proj.*name it there.*down_proj, gate_proj"),
    (Oft(oft_block_size=24), {}, r"oft_block_size: found 24; .* has 64 inputs.*divisor"),
    (Boft(boft_block_size=6), {}, r"boft_block_size: found 6; .* has 64 inputs.*divisor"),
    (FourierFT(n_frequency=3000), {}, r"n_frequency: found 3000; the weight of k_proj has 2048 numbers: lower it"),
    (LayerNorm(target_modules=["ln_1"]), {}, r"norms are input_layernorm, norm, post_attention_layernorm"),
    (LayerNorm(), MAMBA, r"norms of mamba2 aren't known.*llama.*another method"),
    (PromptTuning(), MAMBA, r"mamba2 doesn't keep keys and values.*lora"),
    (PromptTuning(num_virtual_tokens=128), {}, r"num_virtual_tokens: found 128; the model has 128 positions.*lower"),
    (PTuning(num_virtual_tokens=500), {}, r"finetune\.p_tuning\.num_virtual_tokens: found 500"),
    (PrefixTuning(), MAMBA, r"found prefix_tuning; mamba2 doesn't keep"),
    (LlamaAdapter(), {"model_type": "qwen2"}, r"the model is a qwen2, and peft knows.*llama and mistral"),
    (LlamaAdapter(), {"head_dim": 24}, r"heads of 24 are none: choose another method"),
    (LlamaAdapter(adapter_layers=9), {}, r"adapter_layers: found 9; the model has 2 layers: lower it"),
    (Bottleneck(), MAMBA, r"behind o_proj or down_proj, which this model hasn't.*in_proj"),
    (Bottleneck(mh_adapter=False, output_adapter=False), {}, r"both false"),
]


@pytest.mark.parametrize(("technique", "changes", "said"), REFUSED, ids=lambda value: getattr(value, "method", None))
def test_what_cannot_work_is_refused_in_words(technique: FinetuneTechnique, changes: dict[str, Any], said: str) -> None:
    """From the config alone: what was found, what there is, what to do."""
    import re

    found = technique.refuse(changes if "num_heads" in changes else config(**changes))
    assert re.search(said, found), found


def test_an_unmerged_folder_is_no_base(tmp_path: Path) -> None:
    """Pretraining would go on with the weights alone, which are another model."""
    (tmp_path / "config.json").write_text(json.dumps(config()), encoding="utf-8")
    Existing().blueprint(400, tmp_path)
    mark_unmerged(tmp_path)
    with pytest.raises(UserError, match=r"pretrain\.init .*its adapter could not be merged"):
        Existing().blueprint(400, tmp_path)


KINDS: dict[str, Any] = dict(Finetune.techniques())


@pytest.mark.parametrize(
    "technique", [kind() for kind in KINDS.values() if not kind.merges], ids=lambda made: made.method
)
def test_an_adapter_of_another_base_is_refused(technique: FinetuneTechnique, tmp_path: Path) -> None:
    """Weights of the same shapes that it wasn't trained on would make another model of it, silently."""
    new_model(config(), 0).save_pretrained(tmp_path)
    begun(technique, load_model(tmp_path), base=tmp_path).write(tmp_path / "adapter")
    mark_unmerged(tmp_path)
    load_model(tmp_path)
    new_model(config(), 1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="aren't those that adapter/ was trained on"):
        load_model(tmp_path)
