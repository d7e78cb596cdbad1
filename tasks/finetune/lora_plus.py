"""LoRA+: LoRA with a learning rate of B that is a multiple of A's."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tasks.finetune.shared.adapter import PeftTuning
from tasks.finetune.shared.low_rank import LowRank
from tasks.finetune.technique import Plan, Tuning
from tasks.optimizers.technique import Named, OptimizerTechnique


class LoraPlus(LowRank):
    """Low-rank update whose B learns faster than its A (arXiv:2402.12354)."""

    loraplus_lr_ratio: float = Field(default=16.0, ge=1)
    """Learning rate of B as a multiple of `learning_rate`, which is A's."""

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """LoRA, and an optimizer of two speeds."""
        return _Tuning(super().begin(base, plan).model, self.loraplus_lr_ratio)


class _Tuning(PeftTuning):
    def __init__(self, model: Any, ratio: float) -> None:
        super().__init__(model, merges=True)
        self._ratio = ratio

    def optimizer(self, chosen: OptimizerTechnique) -> OptimizerTechnique:
        """The chosen one, of two speeds."""
        return two_speeds(chosen, self._ratio)


def two_speeds(chosen: OptimizerTechnique, ratio: float) -> OptimizerTechnique:
    """The `chosen` optimizer with `ratio` times its learning rate for B: every group it has is split in two."""
    kind = type(chosen)

    class TwoSpeeds(kind):  # type: ignore[misc,valid-type]  # it is what was chosen, and says of itself what that says
        """The chosen optimizer, of two speeds."""

        def build(self, named: Named, learning_rate: float, weight_decay: float) -> Any:
            """What the chosen one builds; only the groups differ."""
            made = super().build(named, learning_rate, weight_decay)
            fast = {id(parameter) for name, parameter in named if ".lora_B." in name}
            made.param_groups[:] = [part for group in made.param_groups for part in _split(group, fast, ratio)]
            return made

    return TwoSpeeds(**chosen.model_dump())


def _split(group: dict[str, Any], fast: set[int], ratio: float) -> list[dict[str, Any]]:
    """A parameter group as up to two: what isn't `fast` (by `id`), and what is, with `lr_scale`."""
    slow = [parameter for parameter in group["params"] if id(parameter) not in fast]
    rest = [parameter for parameter in group["params"] if id(parameter) in fast]
    scaled = group.get("lr_scale", 1.0) * ratio
    parts = [{**group, "params": slow}, {**group, "params": rest, "lr_scale": scaled}]
    return [part for part in parts if part["params"]]
