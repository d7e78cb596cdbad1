"""LISA: embeddings and output layer are always trained, of the layers between a few at a time, drawn by chance."""

from __future__ import annotations

from random import Random

from pydantic import PositiveInt

from tasks.accounting import read
from tasks.accounting.partial import Part
from tasks.finetune.shared.rotating import Rotating
from tasks.models import Config


class Lisa(Rotating):
    """Layers drawn anew every few steps, beside embeddings and output layer (arXiv:2403.17919).

    Gradients and optimizer state are those of the layers drawn; a layer that rests forgets its state.
    """

    n_layers: PositiveInt = 2
    """Layers that are trained at a time (upstream's lisa_activated_layers)."""
    interval_steps: PositiveInt = 20
    """Steps until other layers are drawn (upstream's lisa_interval_steps)."""

    @property
    def every(self) -> int:
        """Steps of a draw."""
        return self.interval_steps

    def part_at(self, config: Config, step: int, seed: int) -> Part:
        """The layers of the step's draw, and the ends."""
        drawn = Random(f"lisa {seed} {step // self.interval_steps}").sample(
            range(read(config).layers), self._count(config)
        )
        return self._with(drawn)

    def cycle(self, config: Config) -> list[Part]:
        """Every run of neighbours once, round the corner: each layer is in as many of them."""
        layers = read(config).layers
        return [self._with([(start + n) % layers for n in range(self._count(config))]) for start in range(layers)]

    def refuse(self, config: Config) -> str:
        """More layers than there are."""
        count = read(config).layers
        if self.n_layers <= count:
            return super().refuse(config)
        return f"finetune.lisa.n_layers: found {self.n_layers}; the model has {count} layers: lower it, or use finetune.method full"

    def _count(self, config: Config) -> int:
        return min(self.n_layers, read(config).layers)

    def _with(self, numbers: list[int]) -> Part:
        return Part(frozenset(numbers), embedding=True, norm=True, head=True)
