"""Engine transformers: `model.generate` on the safetensors folder, in the arithmetic the weights are saved in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.deploy_profile.engines import Engine, Request, Stamp
from tasks.models.load import load_model, load_tokenizer

LAZY = (AutoModelForCausalLM, AutoTokenizer)
"""Named so that they are imported here: transformers imports late, and importing isn't loading."""


class _Stamps:
    """A streamer, as `generate` asks for: notes when each token arrives; the first thing it is handed is the prompt."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.stamps: list[Stamp] = []
        self.prompt_seen = False

    def put(self, value: Any) -> None:
        del value
        if not self.prompt_seen:
            self.prompt_seen = True
            return
        self.stamps.append(Stamp(time.perf_counter() - self.start, len(self.stamps) + 1))

    def end(self) -> None:
        return


class _Transformers:
    def __init__(self, request: Request) -> None:
        torch.set_num_threads(request.threads)
        self.model = load_model(Path(request.model))
        self.tokenizer = load_tokenizer(Path(request.model))
        self.forbidden = request.forbidden
        self.device = str(self.model.device)
        self.version = f"transformers {transformers.__version__}, torch {torch.__version__}"

    def _generate(self, prompt: list[int], count: int, streamer: _Stamps | None) -> Any:
        inputs = torch.tensor([prompt], device=self.model.device)
        with torch.inference_mode():
            return self.model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=count,
                do_sample=False,
                suppress_tokens=self.forbidden or None,
                pad_token_id=0,
                streamer=streamer,
            )

    def tokens(self, prompt: list[int], count: int) -> list[int]:
        made: list[int] = self._generate(prompt, count, None)[0, len(prompt) :].tolist()
        return made

    def generate(self, prompt: list[int], count: int) -> list[Stamp]:
        streamer = _Stamps()
        self._generate(prompt, count, streamer)
        return streamer.stamps

    def tokenize(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def device_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self.model.device.type == "cuda" else None


def load(request: Request) -> Engine:
    """Load the model folder `request.model`.

    Raises:
        UserError: the folder holds no model that transformers reads.
    """
    return _Transformers(request)
