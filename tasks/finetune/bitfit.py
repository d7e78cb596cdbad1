"""BitFit: only the vectors that linear layers add are trained."""

from __future__ import annotations

from typing import Any

from tasks.accounting.memory import Learning
from tasks.accounting.partial import apart_flops_per_token, bias_layers
from tasks.finetune.shared.parts import OwnTechnique, OwnWeights
from tasks.finetune.technique import Plan, Shape, Tuning
from tasks.models import Config

FLAGS = ("attention_bias", "mlp_bias")
"""Fields of a config that give its linear layers biases; an architecture has both, one, or none of them."""


class BiasTuning(OwnWeights):
    """Biases at work.

    Args:
        model: the base, with the biases it is to have.
        plan: of the run.
        method: the technique's name.
        flags: what was changed in the base's config.
    """

    def __init__(self, model: Any, plan: Plan, method: str, flags: Config) -> None:
        super().__init__(model, plan, method)
        self._flags = flags

    def facts(self) -> dict[str, Any]:
        """What to change in the base's config."""
        return {"config": self._flags}


class Bitfit(OwnTechnique):
    """Train the biases of the linear layers and nothing else (arXiv:2106.10199).

    Llama and its kin are made without biases, but their architectures have a place for them, which every engine that
    reads their config knows. `add` puts zeros there, which change nothing until they are trained.
    """

    add: bool = True
    """Give layers biases by the config's `attention_bias` and `mlp_bias` where the base has none."""

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """`base` with its biases trainable, and no other weight."""
        from tasks.models.difference import with_biases

        flags = self._flags(base.config.to_dict())
        model = with_biases(base, flags)
        model.requires_grad_(False)
        wanted = {f"{layer.name}.bias" for layer in bias_layers(model.config.to_dict())}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in wanted)
        return BiasTuning(model, plan, self.method, flags)

    def config_after(self, config: Config) -> Config:
        """With the flags of its new biases."""
        return {**config, **self._flags(config)}

    def trained_shapes(self, config: Config) -> list[Shape]:
        """A number per output of every layer."""
        return [(layer.outputs,) for layer in bias_layers(self.config_after(config))]

    def learning(self, config: Config) -> Learning:
        """A bias's gradient needs nothing that was read."""
        first = min(layer.place for layer in bias_layers(self.config_after(config)))[0]
        return Learning(first, frozenset())

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """Forward, and the way back to the first bias; a bias's own gradient is a sum and counts nothing."""
        after = self.config_after(config)
        return apart_flops_per_token(after, context, labelled, bias_layers(after), lambda _: 0.0)

    def refuse(self, config: Config) -> str:
        """No bias is there, and none can be."""
        if bias_layers(self.config_after(config)):
            return super().refuse(config)
        kind, mend = config.get("model_type", "llama"), "choose another finetune.method"
        if not self.add and bias_layers({**config, **dict.fromkeys(FLAGS, True)}):
            mend = "set finetune.bitfit.add to true"
        return f"finetune.method: found bitfit; the linear layers of this {kind} have no biases to train: {mend}"

    def _flags(self, config: Config) -> Config:
        """Fields of the config to change: those that give layers a bias that have none."""
        if not self.add:
            return {}
        most = {**config, **dict.fromkeys(FLAGS, True)}
        return {
            name: True
            for name in FLAGS
            if len(bias_layers({**most, name: False})) < len(bias_layers(most)) and not config.get(name)
        }
