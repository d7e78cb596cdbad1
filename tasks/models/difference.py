"""What a finetuned model is beside its base, as a folder of its own: tensors that changed, or single numbers of them.

`adapter_model.safetensors` holds, by the tensor's name, its new value; or in `NAME.indices` and `NAME.values` the places
(in the flattened tensor) that changed and the new numbers there. `adapter_config.json` says so, which base it is of, and
what has to be changed in that base's config. New numbers, not sums: base and difference are the model bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.models import Config

WEIGHTS, FACTS = "adapter_model.safetensors", "adapter_config.json"
INDICES, VALUES = ".indices", ".values"


def write_difference(folder: Path, tensors: dict[str, Any], base: Path, **facts: Any) -> None:
    """Write a difference.

    Args:
        folder: where to.
        tensors: as the file is to hold them.
        base: folder of the base model.
        facts: more to say in `adapter_config.json`; `config`: what changes in the base's config.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    told = {"format": "difference", "base_sha256": digest(base), "how": " ".join(HOW.split()), **facts}
    (folder / FACTS).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


HOW = """Change the base's config by `config` (biases that are new begin at zero). Then every tensor of the file takes the
place of the base's tensor of that name; NAME.values take the places NAME.indices of the flattened tensor NAME."""


def with_difference(base: Path, folder: Path) -> Any:
    """The base model with the difference of `folder` in it: bit for bit the finetuned model.

    Raises:
        UserError: the difference is of another base, or damaged.
    """
    from safetensors.torch import load_file

    from tasks.models.load import friendly_errors, load_model

    with friendly_errors(folder):
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    if facts.get("format") != "difference":
        raise UserError(
            f"{folder}: no difference of a model (format {facts.get('format')})", "peft loads its own adapters"
        )
    if facts["base_sha256"] != digest(base):
        raise UserError(f"{folder}: made for another base than {base}", "take the base model it was finetuned from")
    model = with_biases(load_model(base), facts.get("config", {}))
    places = dict(model.named_parameters())
    with friendly_errors(folder):
        for name, tensor in tensors.items():
            if name.endswith(INDICES):
                whole = name.removesuffix(INDICES)
                places[whole].data.view(-1)[tensor.long()] = tensors[whole + VALUES].to(places[whole].device)
            elif not name.endswith(VALUES):
                places[name].data.copy_(tensor)
    return model


def changed_tensors(model: Any, base: Path, dtype: Any) -> dict[str, Any]:
    """Parameters of `model` that, kept in `dtype`, are not those of the folder `base`, or aren't there."""
    from tasks.models.load import load_model

    before = dict(load_model(base).named_parameters())
    found = {}
    for name, parameter in model.named_parameters():
        now, was = parameter.detach().to(dtype), before.pop(name, None)
        if was is None or not now.equal(was.to(dtype)):
            found[name] = now.cpu()
    return found


def with_biases(model: Any, flags: Config) -> Any:
    """`model` with the biases its architecture has under these flags of its config, at zero; it computes the same."""
    import torch

    from tasks.models.load import outline

    if not flags:
        return model
    there = dict(model.named_parameters())
    for name, parameter in outline({**model.config.to_dict(), **flags}).named_parameters():
        owner, _, last = name.rpartition(".")
        if name not in there and last == "bias":
            beside = model.get_submodule(owner).weight
            zero = torch.zeros(parameter.shape, dtype=beside.dtype, device=beside.device)
            model.get_submodule(owner).bias = torch.nn.Parameter(zero)
    for name, value in flags.items():
        setattr(model.config, name, value)
    return model


def digest(base: Path) -> str:
    """SHA-256 of a folder's weights, file after file."""
    found = hashlib.sha256()
    for path in sorted(base.glob("*.safetensors")):
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()
