"""Prefix tuning: every layer's attention sees learned keys and values in front of those of the text."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import PositiveInt

from tasks.accounting.attention import head_size
from tasks.accounting.decoder import key_heads
from tasks.accounting.lora import Layer, frozen_flops_per_token, head_flops
from tasks.finetune.shared.soft_prompt import SoftPrompt, encoder_flops, encoder_shapes, peft_made
from tasks.finetune.technique import Plan, Shape
from tasks.models import Config


class PrefixTuning(SoftPrompt):
    """Learned keys and values in front of every text (arXiv:2101.00190)."""

    prefix_projection: bool = False
    """Make them by a network of two layers, which is thrown away after training."""
    encoder_hidden_size: PositiveInt = 128
    """Inner width of that network."""
    init_weights: Literal["zero"] | None = "zero"
    """Begin with keys and values of zero, which disturb least; null: random ones."""

    def peft_config(self, base: Any, plan: Plan) -> Any:
        """A `peft.PrefixTuningConfig`; peft takes heads and their size from the model."""
        return peft_made("PrefixTuningConfig", self)

    def trained_shapes(self, config: Config) -> list[Shape]:
        """Keys and values of all layers for each virtual token, or what goes into the network, and the network."""
        if not self.prefix_projection:
            return self.adapter_shapes(config)
        return [(self.num_virtual_tokens, self._width(config)), *self._network(config)]

    def adapter_shapes(self, config: Config) -> list[Shape]:
        """Keys and values of all layers for each virtual token."""
        return [(self.num_virtual_tokens, 2 * config["num_hidden_layers"] * self._width(config))]

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """The frozen model's with more keys, and the network, which peft runs for every sequence.

        Nothing before the first layer's attention depends on the keys.
        """
        prefix = [Layer(f"{part}_prefix", 0, 0, (0, 0)) for part in "kv"]
        body = frozen_flops_per_token(config, context + self.num_virtual_tokens, prefix, lambda *_: 0.0)
        made = encoder_flops(self.num_virtual_tokens, self._network(config)) if self.prefix_projection else 0.0
        return body - 2 * head_flops(config) * (1 - labelled) + made / context

    def refuse(self, config: Config) -> str:
        """Models without a cache of keys and values of one size, or with too few positions."""
        if wrong := super().refuse(config):
            return wrong
        if config.get("kv_lora_rank"):
            return (
                f"finetune.method: found {self.method}; the latent attention of {config['model_type']} keeps keys and values of "
                "different sizes, which peft's prefixes don't: choose prompt_tuning, p_tuning or lora"
            )
        return ""

    def _width(self, config: Config) -> int:
        return head_size(config) * key_heads(config)

    def _network(self, config: Config) -> list[Shape]:
        width = self._width(config)
        last = 2 * config["num_hidden_layers"] * width
        return encoder_shapes(width, self.encoder_hidden_size, last, hidden=0)
