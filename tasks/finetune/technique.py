"""What every finetuning technique can do: load a base, adapt it, and say what is delivered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tasks import accounting
from tasks.accounting.lora import Layer
from tasks.accounting.memory import Learning
from tasks.accounting.partial import frozen_forward_flops
from tasks.core.schema import Technique
from tasks.models import Config
from tasks.models.quantized import load_bits, quantization
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
        rotates: whether what is trained changes within a run.
        beside_bits: whether it never touches the base's own weights, so that bitsandbytes may keep those in a few bits.
        shrinks: whether what is delivered is cut down within the run, so that weights of an earlier step are more than was asked for.
        reads_gradients: whether its hooks read gradients after a step, so that the optimizer has to keep them till then.
    """

    merges: ClassVar[bool] = True
    frozen: ClassVar[bool] = True
    packs: ClassVar[bool] = True
    rotates: ClassVar[bool] = False
    beside_bits: ClassVar[bool] = False
    shrinks: ClassVar[bool] = False
    reads_gradients: ClassVar[bool] = False

    @property
    def method(self) -> str:
        """Its name in the registry: that of its file."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def positions(self) -> int:
        """Positions of every text that the technique takes for itself."""
        return 0

    def load(self, folder: Path) -> Any:
        """The base model, in an arithmetic this machine has; weights that will be trained are float32."""
        from tasks.models.device import computable
        from tasks.models.load import load_model, read_config

        if self.beside_bits and quantization(read_config(folder)):
            return load_bits(folder)
        model = load_model(folder)
        return computable(model) if self.frozen else computable(model.float())

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """The technique at work on `base`.

        Raises:
            ValueError: it doesn't fit this model; says why.
        """
        raise NotImplementedError

    def trained_shapes(self, config: Config) -> list[Shape]:
        """Shapes of every tensor that is trained at a time, by arithmetic alone: their sizes are what is predicted."""
        raise NotImplementedError

    def kept_shapes(self, config: Config) -> list[Shape]:
        """Shapes of every tensor that is trained at some time, which a checkpoint holds."""
        return self.trained_shapes(config)

    def learning(self, config: Config) -> Learning | None:
        """Which blocks keep activations, at the most; None: all of them everything."""
        return None

    def config_after(self, config: Config) -> Config:
        """The config of the merged model."""
        return config

    def beside_bytes(self, config: Config) -> int:
        """Bytes of what is in memory in training beside the base, gradients, optimizer and activations."""
        return 0

    def adapter_shapes(self, config: Config) -> list[Shape]:
        """Shapes of the float32 tensors that are delivered beside the base; none where the model itself is."""
        return []

    def adapted_layers(self, config: Config) -> list[Layer]:
        """Linear layers with a part beside them that keeps tensors of every token for the backward pass."""
        return []

    def delivered(self, config: Config, stored: int, steps: int, seed: int) -> list[tuple[Shape, int]]:
        """Shapes of the tensors that are delivered, each with its bytes per number.

        Args:
            config: of the base.
            stored: bytes per number of the base as it is kept.
            steps: of the run.
            seed: of the run.
        """
        return [(shape, 4) for shape in self.adapter_shapes(config)]

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """FLOPs of a token's forward and backward pass in a row of `context`, logits for a share `labelled` of them."""
        raise NotImplementedError

    def mean_flops_per_token(self, config: Config, context: int, labelled: float, steps: int, seed: int) -> float:
        """The same on average over a run, where what is trained changes within it."""
        return self.flops_per_token(config, context, labelled)

    def forward_flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """FLOPs of a token's forward pass alone; that of the model, but for what a technique puts beside it."""
        return frozen_forward_flops(self.config_after(config), context, labelled)

    def flops_per_pass(self, config: Config) -> float:
        """FLOPs of a forward and backward pass that don't grow with its tokens; a `Tuning` with some says `fixed`."""
        return 0.0

    def base_bytes(self, config: Config, stored: int, half: bool) -> int:
        """Bytes of the base in memory, as `load` leaves it.

        Args:
            config: of the base.
            stored: bytes of a weight on disk.
            half: whether the machine multiplies bfloat16 in hardware.
        """
        return accounting.parameters(config) * (stored if self.frozen and half else 4)

    def refuse(self, config: Config) -> str:
        """Why the technique can't work on a model of this config and what to do, for a person; "" if it can. No torch."""
        found = quantization(config)
        in_bits = found.get("quant_method") == "bitsandbytes"
        if not found or (in_bits and self.beside_bits):
            return ""
        known = "set finetune.method to qlora" if in_bits else "start from it unquantized"
        return f"finetune.method: found {self.method}; the model's weights are {found.get('quant_method')} already: {known}"
