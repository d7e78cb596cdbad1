"""What every finetuning technique can do: load a base, adapt it, and say what is delivered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tasks.core.schema import Technique
from tasks.models import Config
from tasks.optimizers.technique import OptimizerTechnique
from tasks.training.hooks import Hooks

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The run a technique is made for.

    Attributes:
        base: folder of the base model.
        work: a folder of its own that outlives a kill.
        steps: optimizer steps.
        seed: of every random choice.
        optimizer: the chosen one.
    """

    base: Path
    work: Path
    steps: int
    seed: int
    optimizer: OptimizerTechnique


class Tuning(Hooks):
    """A technique at work on one model; the loop calls its hooks.

    Attributes:
        model: what is trained, with `requires_grad` where it is. Once the loop has begun, only tensors that had it may.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def optimizer(self, chosen: OptimizerTechnique) -> OptimizerTechnique:
        """The optimizer to use: the chosen one, or one made of it."""
        return chosen

    def trainable(self) -> int:
        """Parameters that are trained at a time."""
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)

    def write(self, folder: Path) -> bool:
        """Write the adapter into `folder`, as its ecosystem reads it; False where there is none but the model itself."""
        return False

    def merged(self) -> Any | None:
        """The model with the adapter in its own weights; None where it can't be merged. The last call of all."""
        return self.model


class FinetuneTechnique(Technique):
    """A way to adapt a model. Fields are what upstream calls them.

    Attributes:
        merges: whether the result can be one model without an adapter.
        frozen: whether the base's weights stay as they are, and may be kept in half precision.
        packs: whether several chats may share a row, each seeing its own alone.
    """

    merges: ClassVar[bool] = True
    frozen: ClassVar[bool] = True
    packs: ClassVar[bool] = True

    @property
    def method(self) -> str:
        """Its name in the registry: that of its file."""
        return type(self).__module__.rpartition(".")[2]

    def load(self, folder: Path) -> Any:
        """The base model, in an arithmetic this machine has; weights that will be trained are float32."""
        from tasks.models.device import computable
        from tasks.models.load import load_model

        model = load_model(folder)
        return computable(model) if self.frozen else computable(model.float())

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """The technique at work on `base`.

        Raises:
            ValueError: it doesn't fit this model; says why.
        """
        raise NotImplementedError

    def trained_shapes(self, config: Config) -> list[Shape]:
        """Shapes of every tensor that is trained, by arithmetic alone: their sizes are what is predicted."""
        raise NotImplementedError

    def adapter_shapes(self, config: Config) -> list[Shape]:
        """Shapes of the float32 tensors that are delivered beside the base; none where the model itself is."""
        return []

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """FLOPs of a token's forward and backward pass in a row of `context`, logits for a share `labelled` of them."""
        raise NotImplementedError

    def refuse(self, config: Config) -> str:
        """Why the technique can't work on a model of this config and what to do, for a person; "" if it can. No torch."""
        return ""
