"""VeRA: one pair of random matrices, shared by all layers and frozen; a layer learns two vectors that scale between them."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from pydantic import Field, PositiveInt

from tasks.accounting.lora import Layer
from tasks.finetune.shared.on_linear import OnLinear, products
from tasks.finetune.technique import Plan, Shape, Tuning
from tasks.models import Config


class Vera(OnLinear):
    """Vectors that scale shared random projections (arXiv:2310.11454)."""

    r: PositiveInt = 256
    """Rank of the shared projections; the trained part grows by one number a layer with it."""
    d_initial: float = Field(default=0.1, gt=0)
    """First value of the vector between the projections."""
    vera_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input while training."""
    save_projection: bool = True
    """Deliver the projections; without them they are drawn again from the seed, on the same version of torch."""

    config_class: ClassVar[str] = "VeraConfig"

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """A `PeftModel` of which only the adapter is trained."""
        with warnings.catch_warnings():  # of what save_projection says itself
            warnings.filterwarnings("ignore", message="Specified to not save vera_A")
            return super().begin(base, plan)

    def fields(self, plan: Plan) -> dict[str, Any]:
        """The projections follow from the run's seed."""
        return {"projection_prng_key": plan.seed}

    def layer_shapes(self, layer: Layer) -> list[Shape]:
        """Scales behind both projections (outputs) and between them (r)."""
        return [(layer.outputs,), (self.r,)]

    def layer_flops(self, layer: Layer, learns: bool) -> float:
        """Both projections, the gradient back to the scale between them, and to the input if it needs one."""
        into, out = (self.r, layer.inputs), (layer.outputs, self.r)
        return products([into, out, out, (layer.outputs,), (self.r,), *([into] if learns else [])])

    def adapter_shapes(self, config: Config) -> list[Shape]:
        """The scales, and the projections, as large as the largest layer, where they are delivered."""
        chosen = self.adapted_layers(config)
        if not (self.save_projection and chosen):
            return self.trained_shapes(config)
        widest = max(layer.inputs for layer in chosen), max(layer.outputs for layer in chosen)
        return [(self.r, widest[0]), (widest[1], self.r), *self.trained_shapes(config)]
