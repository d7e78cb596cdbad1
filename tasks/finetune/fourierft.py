"""FourierFT: the update of a layer's weight is the inverse Fourier transform of a few learned coefficients."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveFloat, PositiveInt

from tasks.accounting.lora import Layer
from tasks.finetune.shared.on_linear import OnLinear, products
from tasks.finetune.technique import Plan, Shape


class FourierFT(OnLinear):
    """Updates of weights from a few coefficients of their spectrum (arXiv:2405.03003)."""

    n_frequency: PositiveInt = 1000
    """Coefficients learned for every layer; where they stand is drawn from the seed."""
    scaling: PositiveFloat = 300.0
    """What the transform is multiplied by."""
    init_weights: bool = True
    """Begin with coefficients of zero, which change nothing; else with random ones, as the paper does."""

    config_class: ClassVar[str] = "FourierFTConfig"

    def fields(self, plan: Plan) -> dict[str, Any]:
        """Where the coefficients stand follows from the run's seed."""
        return {"random_loc_seed": plan.seed}

    def layer_shapes(self, layer: Layer) -> list[Shape]:
        """The coefficients."""
        return [(self.n_frequency,)]

    def layer_flops(self, layer: Layer, learns: bool) -> float:
        """A product with the whole update, its gradient, and the input's if it needs one; transforms aren't products."""
        return (3 if learns else 2) * products([(layer.inputs, layer.outputs)])

    def layer_refused(self, layer: Layer) -> str:
        """More coefficients than the weight has numbers."""
        if self.n_frequency <= (size := layer.inputs * layer.outputs):
            return ""
        return (
            f"finetune.fourierft.n_frequency: found {self.n_frequency}; the weight of {layer.last} has {size} numbers: lower it, "
            "or choose larger layers in target_modules"
        )
