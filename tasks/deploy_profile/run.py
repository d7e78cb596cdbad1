"""Stage deploy_profile: write the deployable files, then measure each engine in a process of its own."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

from tasks.accounting import cache_bytes, decode_flops_per_token, kv_cache_bytes_per_token
from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted
from tasks.deploy_profile import DeployProfile
from tasks.deploy_profile.figures import file_metrics
from tasks.deploy_profile.gguf_export import Exported, Exporter
from tasks.deploy_profile.profile import profile
from tasks.evaluate import BESIDE, Evaluate
from tasks.models import Config, positions
from tasks.models.adapter import positions_taken
from tasks.models.load import load_tokenizer, read_config, weight_bytes


def run(
    params: DeployProfile, *, seed: int, evaluate: Evaluate, data: Path, compress: Path, out: Path, job: Job
) -> Metrics:
    """Export the compressed model and profile it under every engine.

    Args:
        params: the stage's block.
        seed: chooses the passage of held-out text that is the prompt.
        evaluate: length of the samples.
        data: the data stage's folder, for held-out text and chats.
        compress: the compressed model's folder.
        out: receives safetensors/, model-<TYPE>.gguf, samples.json and profile.json, the same bytes every time.
        job: the shell's loan.

    Raises:
        UserError: the model cannot be exported, an engine cannot run it, or the prompt is too long for it.
    """
    config = read_config(compress)
    _check_length(params, config, positions_taken(compress))
    exported = _export(params, compress, out, job)
    job.stop_if_over_budget("the export")
    tokenizer = load_tokenizer(compress)
    prompt = _prompt(tokenizer, data, params.prompt_tokens, seed)
    _write_samples(compress, tokenizer, data, out, evaluate)
    sizes = {"safetensors": weight_bytes(out / "safetensors"), **{file.type: file.bytes for file in exported}}
    metrics = file_metrics(sizes, {file.type: file.note for file in exported}, params.serve)
    metrics |= _counted(params, config, positions_taken(compress))
    _write_profile(params, config, exported, prompt, out)
    return metrics | profile(params, prompt, tokenizer, out, job)


def _check_length(params: DeployProfile, config: Config, virtual: int) -> None:
    limit = (positions(config) or 0) - virtual
    asked = params.prompt_tokens + params.max_new_tokens
    if positions(config) and asked > limit:
        raise UserError(
            f"deploy_profile.prompt_tokens + deploy_profile.max_new_tokens: found {params.prompt_tokens} + "
            f"{params.max_new_tokens} = {asked}, but the model sees {limit} tokens at most",
            "lower one of the two, or design a model with a longer context",
        )


def _export(params: DeployProfile, compress: Path, out: Path, job: Job) -> list[Exported]:
    shutil.copytree(compress, out / "safetensors", ignore=shutil.ignore_patterns(*BESIDE), dirs_exist_ok=True)
    if not params.gguf:
        return []
    exporter = Exporter(compress)
    files = []
    for kind in params.gguf:
        files.append(exporter.write(out, kind))
        job.say(f"{files[-1].path.name}: {files[-1].bytes} bytes" + (f" ({files[-1].note})" if files[-1].note else ""))
    return files


def _prompt(tokenizer: Any, data: Path, length: int, seed: int) -> list[int]:
    """`length` token ids of running held-out text, begun at a place that the seed chooses."""
    from tasks.evaluate.text import read_texts

    texts = read_texts(data)
    start = random.Random(seed).randrange(len(texts)) if texts else 0
    ids: list[int] = []
    for text in texts[start:] + texts[:start]:
        ids += tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if len(ids) >= length:
            return ids[:length]
    raise UserError(
        f"deploy_profile.prompt_tokens: found {length}, but the held-out text has {len(ids)} tokens in all",
        "lower it, or raise data.test_fraction or evaluate.max_bytes",
    )


def _write_samples(compress: Path, tokenizer: Any, data: Path, out: Path, evaluate: Evaluate) -> None:
    from tasks.evaluate.samples import write_samples
    from tasks.models.device import computable
    from tasks.models.load import load_model

    write_samples(computable(load_model(compress)), tokenizer, data, out, evaluate)


def _counted(params: DeployProfile, config: Config, virtual: int) -> Metrics:
    prompt = virtual + params.prompt_tokens
    middle, whole = prompt + params.max_new_tokens // 2, prompt + params.max_new_tokens
    return {
        "kv_cache_bytes_per_token": counted(kv_cache_bytes_per_token(config), "2 bytes an element"),
        "cache_bytes": counted(
            cache_bytes(config, whole), f"{whole} tokens, 2 bytes an element, states in their own type"
        ),
        "decode_flops_per_token": counted(decode_flops_per_token(config, middle), f"with {middle} tokens in the cache"),
    }


def _write_profile(
    params: DeployProfile, config: Config, exported: list[Exported], prompt: list[int], out: Path
) -> None:
    """What is delivered, without a stopwatch: the same bytes whenever the stage runs on the same inputs."""
    files = [
        {
            "name": file.path.name,
            "type": file.type,
            "bytes": file.bytes,
            "sha256": _sha256(file.path),
            "note": file.note,
        }
        for file in exported
    ]
    shape = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    facts = {
        "serve": "safetensors" if params.serve == "safetensors" else f"model-{params.serve}.gguf",
        "architecture": config["architectures"][0],
        "shape": {key: config.get(key) for key in (*shape, "vocab_size", "max_position_embeddings")},
        "files": files,
        "prompt": prompt,
        "max_new_tokens": params.max_new_tokens,
    }
    (out / "profile.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
