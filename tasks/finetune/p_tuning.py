"""P-tuning: virtual tokens in front of every text, made by a small network that is thrown away after training."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveInt

from tasks.finetune.shared.soft_prompt import SoftPrompt, encoder_flops, encoder_shapes, peft_made
from tasks.finetune.technique import Plan, Shape
from tasks.models import Config


class PTuning(SoftPrompt):
    """Embeddings in front of every text, made by a network of three layers (arXiv:2103.10385)."""

    encoder_hidden_size: PositiveInt = 128
    """Inner width of that network."""

    fixed: ClassVar[bool] = True

    def peft_config(self, base: Any, plan: Plan) -> Any:
        """A `peft.PromptEncoderConfig`."""
        return peft_made("PromptEncoderConfig", self)

    def trained_shapes(self, config: Config) -> list[Shape]:
        """Embeddings that go in, and the network."""
        return [*self.adapter_shapes(config), *self._network(config)]

    def flops_per_pass(self, config: Config) -> float:
        """The network's: every sequence has the same virtual tokens, so it runs once."""
        return encoder_flops(self.num_virtual_tokens, self._network(config))

    def _network(self, config: Config) -> list[Shape]:
        return encoder_shapes(config["hidden_size"], self.encoder_hidden_size, config["hidden_size"], hidden=1)
