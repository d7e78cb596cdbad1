"""Bottleneck adapters (arXiv:1902.00751): two thin layers with a bend between them behind a layer, added to what it made.

No kept library has them for this version of transformers, so they are here: attached by hooks, so that the base keeps its
names and its forward pass, and stored as `adapter_model.safetensors` and `adapter_config.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KIND = "BOTTLENECK"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
NAME = "bottleneck"


def is_bottleneck(folder: Path) -> bool:
    """Whether the adapter of `folder` is of this kind."""
    return (folder / CONFIG).exists() and json.loads((folder / CONFIG).read_text(encoding="utf-8"))["peft_type"] == KIND


def attach(model: Any, layers: list[str], size: int, non_linearity: str) -> None:
    """Put an adapter behind each of the named layers of `model`, which is frozen then; fresh ones change nothing.

    Args:
        model: a transformers model.
        layers: names of linear modules.
        size: inner width.
        non_linearity: as in transformers' `ACT2FN`.
    """
    import torch
    from transformers.activations import ACT2FN

    model.requires_grad_(False)
    for name in layers:
        layer = model.get_submodule(name)
        width, device = layer.out_features, layer.weight.device
        down, up = torch.nn.Linear(width, size, device=device), torch.nn.Linear(size, width, device=device)
        torch.nn.init.normal_(down.weight, std=1e-2)  # as the paper draws it
        for zero in (down.bias, up.weight, up.bias):
            torch.nn.init.zeros_(zero)
        layer.add_module(NAME, torch.nn.Sequential(down, ACT2FN[non_linearity], up))
        layer.register_forward_hook(_add)


def save(model: Any, folder: Path, layers: list[str], size: int, non_linearity: str) -> None:
    """Write the adapters of `model` into `folder`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(_tensors(model), folder / WEIGHTS)
    fields = {"peft_type": KIND, "size": size, "non_linearity": non_linearity, "target_modules": layers}
    (folder / CONFIG).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


def load(model: Any, folder: Path) -> Any:
    """`model` with the adapters of `folder`.

    Raises:
        RuntimeError: they are those of another model.
    """
    from safetensors.torch import load_file

    fields = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    attach(model, fields["target_modules"], fields["size"], fields["non_linearity"])
    stored, own = load_file(folder / WEIGHTS), _tensors(model)
    if {name: one.shape for name, one in stored.items()} != {name: one.shape for name, one in own.items()}:
        raise RuntimeError("its tensors aren't those of this model's adapters: it was trained on another base")
    for name, tensor in own.items():
        tensor.copy_(stored[name])
    return model


def _tensors(model: Any) -> dict[str, Any]:
    found = model.named_parameters()
    return {name: parameter.detach() for name, parameter in found if f".{NAME}." in f".{name}"}


def _add(layer: Any, _inputs: Any, made: Any) -> Any:
    adapter = layer.get_submodule(NAME)
    added: Any = adapter(made.to(adapter[0].weight.dtype))
    return made + added.to(made.dtype)
