"""Load and save a model folder as transformers writes it; count what is in it. safetensors only, nothing from a network."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.models import Config, positions
from tasks.models.adapter import ADAPTER, is_unmerged, with_adapter
from tasks.models.notices import drop_notices_of_missing_kernels

AGAIN = "below artifacts: remove the folder and run again; a model of your own: save it again with save_pretrained"

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def read_config(folder: Path) -> Config:
    """The transformers config of a model folder, or of a blueprint (a folder with `blueprint.json`).

    Raises:
        UserError: there is none, or it isn't JSON.
    """
    for name in ("config.json", "blueprint.json"):
        path = folder / name
        if path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"), object_hook=_infinite)
            except ValueError as error:
                raise UserError(f"{path}: not valid JSON ({error})", AGAIN) from None
            if not isinstance(found, dict):
                raise UserError(f"{path}: expected an object, found {type(found).__name__}", AGAIN)
            return found
    raise UserError(
        f"{folder}: no model there (neither config.json nor blueprint.json)",
        "name a folder as transformers' save_pretrained writes it, or a .yaml such as data/smollm2.yaml",
    )


def _infinite(entry: dict[str, Any]) -> Any:
    """Transformers writes infinity as `{"__float__": "Infinity"}`, which is valid JSON."""
    return float(entry["__float__"]) if entry.keys() == {"__float__"} else entry


def check_context(name: str, wanted: int, folder: Path) -> None:
    """Refuse a context longer than the model has positions.

    Raises:
        UserError: names the parameter `name` and both lengths.
    """
    limit = positions(read_config(folder))
    if limit and wanted > limit:
        raise UserError(
            f"{name}: found {wanted}; the model has {limit} positions",
            "lower it, or raise the model's longest context in design",
        )


def has_weights(folder: Path) -> bool:
    """Whether the folder holds weights, and not a blueprint alone."""
    return any(folder.glob("*.safetensors"))


def stored_dtype(folder: Path) -> Any:
    """The torch dtype a folder's weights were saved in."""
    import torch

    config = read_config(folder)
    return getattr(torch, config.get("dtype") or config.get("torch_dtype") or "float32")


def load_model(folder: Path, dtype: str = "auto") -> Any:
    """The causal language model of a folder, in evaluation mode on the best device.

    Args:
        folder: as `save_model` writes it; quantized checkpoints are recognised by their config.
        dtype: "auto" (as saved), "float32", "bfloat16" or "float16".

    Raises:
        UserError: no config, no weights, damaged weights, or weights that don't fit the config.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from tasks.models.device import best_device
    from tasks.models.ternary import dense_config, make_ternary

    drop_notices_of_missing_kernels()
    config = read_config(folder)
    if not has_weights(folder):
        raise UserError(f"{folder}: no weights (*.safetensors)", "pickled weights are not read: convert them first")
    with friendly_errors(folder), quiet():
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype="auto" if dtype == "auto" else getattr(torch, dtype),
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
            config=dense_config(folder, config),
        )
    if info["missing_keys"] or info["mismatched_keys"]:
        names = sorted([*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])])
        said = f"{folder}: the weights don't fit config.json: {', '.join(names[:3])} ({len(names)} in all)"
        raise UserError(said, AGAIN)
    make_ternary(model, config)
    if getattr(model, "hf_quantizer", None) is None:
        model.to(best_device())
    return with_adapter(unscaled(model), folder) if is_unmerged(folder) else unscaled(model).eval()


def new_model(config: Config, seed: int) -> Any:
    """A freshly initialised float32 model of a blueprint, the same for the same seed."""
    import torch

    from tasks.models.device import best_device

    drop_notices_of_missing_kernels()
    torch.manual_seed(seed)
    with quiet():
        return unscaled(_from_config(config, torch.float32)).to(best_device()).eval()


def unscaled(model: Any) -> Any:
    """`model` without RWKV's halving of weights on the way from training to evaluation, which saved weights would keep.

    It keeps float16 from overflowing in deep models and changes nothing else (`rescale_every`).
    """
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0
    return model


def _from_config(config: Config, dtype: Any = None) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    from tasks.models.ternary import make_ternary

    fields = {key: value for key, value in config.items() if key != "model_type"}
    made = AutoConfig.for_model(config["model_type"], **fields)
    model = AutoModelForCausalLM.from_config(made, **({} if dtype is None else {"dtype": dtype}))
    make_ternary(model, config)
    return model


def outline(config: Config) -> Any:
    """The model transformers would make of a config, without weights (on torch's meta device)."""
    import torch

    with torch.device("meta"), quiet():
        return _from_config(config)


def weight_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight transformers would make of a config, without making them."""
    return {name: tuple(weight.shape) for name, weight in outline(config).named_parameters()}


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a folder.

    Raises:
        UserError: there is none, or it is damaged.
    """
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").exists():
        raise UserError(f"{folder}: no tokenizer.json", "name a folder with a fast tokenizer")
    with friendly_errors(folder), quiet():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def cast(model: Any, dtype: Any) -> Any:
    """`model` in `dtype`, but for the buffers upstream keeps in float32: a router's bias, which moves by thousandths."""
    strict = getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    kept = {name: b.clone() for name, b in model.named_buffers() if any(part in name for part in strict)}
    model.to(dtype)
    for name, value in kept.items():
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, value)
    return model


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer as one folder that transformers reads (safetensors)."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def copy_model(source: Path, folder: Path) -> None:
    """Copy a model folder's files as they are: config, weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".txt", ".jinja", ".model"):
            shutil.copy2(path, folder / path.name)


def weight_bytes(folder: Path) -> int:
    """Bytes of the folder's weight files, those of an adapter it is nothing without among them."""
    own = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return own + (weight_bytes(folder / ADAPTER) if is_unmerged(folder) else 0)


def count_parameters(model: Any) -> int:
    """Number of parameters, tied ones once (of an unquantized model)."""
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def friendly_errors(folder: Path) -> Iterator[None]:
    """Turn what libraries raise on damaged files into a `UserError` that names the folder."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, json.JSONDecodeError) as error:
        raise UserError(
            f"{folder}: damaged file ({error})",
            f"remove {folder} and run again: it comes back from the cache or is made anew",
        ) from None
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "alloc" in str(error).lower():
            raise
        raise UserError(f"{folder}: cannot be loaded: {' '.join(str(error).split())[:300]}", AGAIN) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and notices out of the user's sight; warnings of our own are ours to say."""
    from transformers.utils import logging as hf_logging

    level = hf_logging.get_verbosity()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
