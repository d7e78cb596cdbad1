"""BAdam: one layer at a time is trained, by an optimizer that begins anew with each."""

from __future__ import annotations

from random import Random
from typing import Literal

from pydantic import PositiveInt

from tasks.accounting import read
from tasks.accounting.partial import Part
from tasks.finetune.shared.rotating import Rotating
from tasks.models import Config


class Badam(Rotating):
    """Block coordinate descent: one layer after the other, the optimizer's state dropped in between (arXiv:2404.02827).

    The optimizer is `finetune.optimizer`'s; the paper's is Adam.
    """

    anew = True

    switch_block_every: PositiveInt = 10
    """Steps until the next layer's turn; upstream takes 100, in runs of many thousand steps."""
    switch_mode: Literal["random", "ascending", "descending"] = "random"
    """Order of the turns; random: another order in every round."""
    include_embedding: bool = False
    """Give the input embedding a turn too."""
    include_lm_head: bool = False
    """Give the last norm and the output layer a turn too."""

    @property
    def every(self) -> int:
        """Steps of a turn."""
        return self.switch_block_every

    def part_at(self, config: Config, step: int, seed: int) -> Part:
        """The block whose turn it is."""
        parts = self.cycle(config)
        turn, place = divmod(step // self.switch_block_every, len(parts))
        order = list(range(len(parts)))
        if self.switch_mode == "random":
            Random(f"badam {seed} {turn}").shuffle(order)
        elif self.switch_mode == "descending":
            order.reverse()
        return parts[order[place]]

    def cycle(self, config: Config) -> list[Part]:
        """Every block once, in the model's order; tied, the embedding is a block of its own with the output layer."""
        anatomy = read(config)
        found = [Part(embedding=True)] if self.include_embedding else []
        found += [Part(frozenset({number})) for number in range(anatomy.layers)]
        if self.include_lm_head:
            again = anatomy.tied and self.include_embedding  # it has its turn already
            found.append(Part(norm=True, head=not again))
        return found
