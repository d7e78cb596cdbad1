"""Some of the decoder's layers are trained, all others rest."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from tasks.accounting import read
from tasks.accounting.partial import Part
from tasks.finetune.shared.parts import PartTechnique
from tasks.models import Config


class Layers(PartTechnique):
    """Train chosen layers of the decoder and nothing else (arXiv:1911.03090).

    Nothing is computed backward below the first of them, so the last ones are the cheapest.
    """

    layers_to_transform: list[NonNegativeInt] | None = None
    """Numbers of the layers to train, from 0; null: the last ones."""
    last: PositiveInt = 2
    """How many of the last layers to train where none are named."""
    norm: bool = True
    """Train the norm behind the last layer too."""
    head: bool = False
    """Train the output layer too; tied to the input embedding, it takes the gradient through all layers."""

    def part(self, config: Config) -> Part:
        """The layers, and what is trained beside them."""
        count = read(config).layers
        chosen = self.layers_to_transform
        numbers = range(max(0, count - self.last), count) if chosen is None else [n for n in chosen if n < count]
        return Part(frozenset(numbers), norm=self.norm, head=self.head)

    def refuse(self, config: Config) -> str:
        """Layers that aren't there."""
        count, chosen = read(config).layers, self.layers_to_transform
        if chosen is None:
            found = f"last: found {self.last}" if self.last > count else ""
        else:
            wrong = [number for number in chosen if number >= count] if chosen else ["none"]
            found = f"layers_to_transform: found {', '.join(map(str, wrong))}" if wrong else ""
        if not found:
            return super().refuse(config)
        return f"finetune.layers.{found}; the model has {count} layers: name some of 0 to {count - 1}, or fewer"
