"""LLaMA-Adapter: the attention of the upper layers also looks at a learned prompt, through a gate that begins closed."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveInt

from tasks.accounting.attention import head_size
from tasks.accounting.decoder import key_heads
from tasks.accounting.lora import Layer, frozen_flops_per_token, head_flops
from tasks.finetune.shared.adapter import PeftTechnique
from tasks.finetune.technique import Plan, Shape
from tasks.models import Config

KNOWN = ("llama", "mistral")
"""Model types whose attention peft can wrap so."""


class LlamaAdapter(PeftTechnique):
    """Gated attention to learned prompts in the upper layers (arXiv:2303.16199)."""

    adapter_len: PositiveInt = 10
    """Vectors of each layer's prompt."""
    adapter_layers: PositiveInt = 2
    """Layers that have one, counted from the top; no more than the model has."""

    merges: ClassVar[bool] = False
    frozen: ClassVar[bool] = False
    fixed: ClassVar[bool] = True

    def peft_config(self, base: Any, plan: Plan) -> Any:
        """A `peft.AdaptionPromptConfig`."""
        from peft import AdaptionPromptConfig

        return AdaptionPromptConfig(task_type="CAUSAL_LM", **self.model_dump())

    def trained_shapes(self, config: Config) -> list[Shape]:
        """A prompt and its gate in each of the layers."""
        return [(1, self.adapter_len, config["hidden_size"]), (1,)] * self.adapter_layers

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """The frozen model's from the first prompt on, and in each layer attention to the prompt."""
        width, query = config["hidden_size"], head_size(config) * config["num_attention_heads"]
        around, among = 2.0 * width * query, 2.0 * self.adapter_len * query

        def attending(_layer: Layer, learns: bool) -> float:
            """Queries are made again, and values, which peft leaves; queries' gradients where the layer's input needs one."""
            gate = 2.0 * self.adapter_len * config["num_attention_heads"]
            values = 2.0 * width * head_size(config) * key_heads(config)
            return float((4 if learns else 3) * around + (6 if learns else 5) * among + gate + values)

        layers = config["num_hidden_layers"]
        prompts = [Layer("prompt", width, query, (at, 2)) for at in range(layers - self.adapter_layers, layers)]
        whole = frozen_flops_per_token(config, context, prompts, attending)
        return whole - 2 * head_flops(config) * (1 - labelled)

    def flops_per_pass(self, config: Config) -> float:
        """Keys and values of the prompts, and the prompts' gradients."""
        width, key = config["hidden_size"], head_size(config) * key_heads(config)
        return float(8 * self.adapter_layers * self.adapter_len * width * key)

    def refuse(self, config: Config) -> str:
        """Architectures peft can't wrap; more layers than there are; quantized weights."""
        kind, layers = config.get("model_type", "llama"), config.get("num_hidden_layers", 0)
        if kind not in KNOWN:
            return (
                f"finetune.method: found {self.method}; the model is a {kind}, and peft knows this method for "
                f"{' and '.join(KNOWN)}: choose another method"
            )
        if head_size(config) * config["num_attention_heads"] != config["hidden_size"]:
            return (
                f"finetune.method: found {self.method}; peft takes heads for a share of the model's width, and this model's "
                f"heads of {head_size(config)} are none: choose another method"
            )
        if self.adapter_layers > layers:
            return f"finetune.{self.method}.adapter_layers: found {self.adapter_layers}; the model has {layers} layers: lower it"
        return super().refuse(config)
