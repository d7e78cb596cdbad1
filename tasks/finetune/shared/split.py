"""Low-rank methods that take their first A and B out of the base, and so train on another base than the one there is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tasks import accounting
from tasks.core.files import sync
from tasks.finetune.shared.adapter import PeftTuning
from tasks.finetune.shared.low_rank import LowRank
from tasks.finetune.technique import Plan, Shape, Tuning
from tasks.models import Config

FILE = "adapter_model.safetensors"


class Split(LowRank):
    """A weight is split into B A, which is trained, and what is left of it, which is frozen."""

    decomposes = True

    def start(self) -> str:
        """How the first A and B are made: peft's `init_lora_weights`."""
        raise NotImplementedError

    def load(self, folder: Path) -> Any:
        """The base in float32: what is taken out of a weight can't be put back into half precision."""
        from tasks.models.device import computable
        from tasks.models.load import load_model

        return computable(load_model(folder).float())

    def base_bytes(self, config: Config, stored: int, half: bool) -> int:
        """Float32."""
        return 4 * accounting.parameters(config)

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """LoRA on what is left of `base`; the first A and B are kept in `plan.work`, and an attempt after a kill takes those."""
        from peft import get_peft_model

        config, place = self.peft_config(base, plan), plan.work / "initial"
        found = (place / FILE).exists()
        config.init_lora_weights = True if found else self.start()
        model = get_peft_model(base, config)
        config.init_lora_weights = True  # once that is done, it is a LoRA like any other
        if found:
            _take_out(model, place)
        else:
            _keep(model, place)
        return _SplitTuning(model, place)

    def adapter_shapes(self, config: Config) -> list[Shape]:
        """A and B of twice the rank: those that were trained, and the first ones, to be subtracted."""
        return self.shapes(config, 2 * self.r)


class _SplitTuning(PeftTuning):
    def __init__(self, model: Any, initial: Path) -> None:
        super().__init__(model, merges=True)
        self._initial = initial

    def write(self, folder: Path) -> bool:
        """What was learned beside the base as it was, as a plain LoRA."""
        self.settled()
        self.model.save_pretrained(folder, path_initial_model_for_weight_conversion=str(self._initial))
        return True


def _keep(model: Any, place: Path) -> None:
    """Write the adapter as it is into the folder `place`, whole or not at all."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    unfinished = place.with_name("initial.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    tensors = get_peft_model_state_dict(model)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, unfinished / FILE)
    sync(unfinished / FILE)
    os.replace(unfinished, place)
    sync(place.parent)


def _take_out(model: Any, place: Path) -> None:
    """Load the adapter of the folder `place`, and subtract it from the base just as peft did when it was made."""
    import torch
    from peft import set_peft_model_state_dict
    from peft.tuners.lora import Linear
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(place / FILE))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Linear):
                a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
                weight = module.get_base_layer().weight
                weight.data = weight.data - module.scaling["default"] * b @ a
