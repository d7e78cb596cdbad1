"""Every engine in turn, in a process of its own, on the files the stage has just written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics
from tasks.deploy_profile import DeployProfile
from tasks.deploy_profile.engines import ENGINES, REFERENCE, Outcome, Request
from tasks.deploy_profile.engines.launch import kept
from tasks.deploy_profile.figures import comparison, engine_metrics, mbu
from tasks.models import experts
from tasks.models.load import read_config

PROBES = (
    "  two, \t tabs\n\n\n   and newlines\r\n",
    "1234567890 3.14 0x1F a1b22",
    "naïve Ωμέγα 日本語 🦙👩‍💻 ﷺ",
    "don't they'll I'M we've <|endoftext|>x<|im_start|>user\nhi<|im_end|>\n",
    "def f(x):\n\treturn x**2  # ok...!?",
)
"""Texts that tokenizers are apt to disagree on."""

EMBEDDINGS = ("embed_tokens.weight", "embeddings.weight")
"""How names of input embeddings end."""


def profile(params: DeployProfile, prompt: list[int], tokenizer: Any, out: Path, job: Job) -> Metrics:
    """Latency, rates, memory, speed-up and agreement of every engine of `params.engines`.

    Args:
        params: the stage's block.
        prompt: token ids.
        tokenizer: what the model was trained with; an engine that tokenizes differently is an error.
        out: holds safetensors/ and the GGUF files.
        job: the shell's loan.

    Raises:
        UserError: an engine cannot run the model, or tokenizes differently.
    """
    texts = [*PROBES, tokenizer.decode(prompt)]
    metrics: Metrics = {}
    outcomes: dict[str, Outcome] = {}
    with job.progress(len(params.engines), unit="engine") as bar:
        for name in params.engines:
            model = out / ("safetensors" if ENGINES[name].reads == "safetensors" else f"model-{params.serve}.gguf")
            job.say(f"{name}: {params.warmup} + {params.repeats} generations of {params.max_new_tokens} tokens")
            outcomes[name] = kept(name, _request(params, prompt, tokenizer, model, texts), job.work)
            check_tokens(name, outcomes[name], tokenizer, model, texts)
            metrics |= engine_metrics(name, outcomes[name], params.prompt_tokens, params.warmup)
            rate = metrics[f"decode_tokens_per_second/{name}"]
            host = job.host_bandwidth_bytes_per_second if ENGINES[name].reads == "gguf" else None
            metrics[f"mbu/{name}"] = mbu(rate, bytes_per_token(model), host or job.bandwidth_bytes_per_second)
            bar.advance()
            if name != params.engines[-1]:
                job.stop_if_over_budget(f"profiling {name}", "what its engine showed is kept, and the rest goes on")
    for name in params.engines:
        if name != REFERENCE:
            files = (
                "the same files" if ENGINES[name].reads == "safetensors" else f"its {params.serve} against safetensors"
            )
            metrics |= comparison(name, outcomes, metrics, files)
    return metrics


def bytes_per_token(model: Path) -> int:
    """Weight bytes that decoding one token reads: not an embedding table of which it reads a row, nor idle experts.

    Args:
        model: a transformers folder or a GGUF file.
    """
    if model.is_dir():
        sizes: dict[str, int] = {}
        for path in model.glob("*.safetensors"):
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            header.pop("__metadata__", None)
            sizes |= {name: entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in header.items()}
        config = read_config(model)
        if any(name.endswith("head.weight") for name in sizes):
            sizes = {name: size for name, size in sizes.items() if not name.endswith(EMBEDDINGS)}
        count, active = experts(config)
        idle = sum(size for name, size in sizes.items() if ".experts." in name) * (count - active)
        return sum(sizes.values()) - (idle // count if count else 0)
    from gguf import GGUFReader

    sizes = {tensor.name: int(tensor.n_bytes) for tensor in GGUFReader(model).tensors}
    return sum(sizes.values()) - (sizes["token_embd.weight"] if "output.weight" in sizes else 0)


def _request(params: DeployProfile, prompt: list[int], tokenizer: Any, model: Path, texts: list[str]) -> Request:
    return Request(
        model=str(model.resolve()),
        prompt=prompt,
        max_new_tokens=params.max_new_tokens,
        forbidden=sorted(index for index, token in tokenizer.added_tokens_decoder.items() if token.special),
        warmup=params.warmup,
        repeats=params.repeats,
        threads=_threads(),
        texts=texts,
    )


def _threads() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_tokens(name: str, outcome: Outcome, tokenizer: Any, model: Path, texts: list[str]) -> None:
    """Hold the engine's ids of `texts` against the tokenizer's.

    Raises:
        UserError: they differ, so that the engine would run another model than was trained.
    """
    for text, found in zip(texts, outcome.tokenized, strict=True):
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        if found != expected:
            raise UserError(
                f"{model}: {name} tokenizes {text!r} as {found[:20]}, {type(tokenizer).__name__} as {expected[:20]}",
                "this tokenizer cannot be written as GGUF; use one that the data stage trains, or SmolLM2's",
            )
