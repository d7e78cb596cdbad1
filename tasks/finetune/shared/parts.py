"""Techniques that train some of the model's own weights and deliver those that changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.accounting.memory import Learning
from tasks.accounting.partial import Part, part_flops_per_token, part_learning, part_parameters, part_shapes
from tasks.finetune.technique import FinetuneTechnique, Plan, Shape, Tuning
from tasks.models import Config


class OwnWeights(Tuning):
    """Some of a model's own weights at work.

    Args:
        model: the base.
        plan: of the run.
        method: the technique's name, for whoever is handed the difference.
    """

    def __init__(self, model: Any, plan: Plan, method: str) -> None:
        super().__init__(model)
        self.plan, self.method = plan, method

    def write(self, folder: Path) -> bool:
        """The tensors that changed, as the merged model will hold them."""
        from tasks.models.difference import changed_tensors, write_difference
        from tasks.models.load import stored_dtype

        base = self.plan.base
        changed = changed_tensors(self.model, base, stored_dtype(base))
        write_difference(folder, changed, base, method=self.method, **self.facts())
        return True

    def facts(self) -> dict[str, Any]:
        """What else is to be said of the difference."""
        return {}


class OwnTechnique(FinetuneTechnique):
    """What trains some of the model's own weights, always the same ones, and delivers those."""

    frozen = False

    def adapter_shapes(self, config: Config) -> list[Shape]:
        """What is trained is what is delivered."""
        return self.trained_shapes(config)

    def delivered(self, config: Config, stored: int, steps: int, seed: int) -> list[tuple[Shape, int]]:
        """In the type of the model's weights."""
        return [(shape, stored) for shape in self.adapter_shapes(config)]


class PartTechnique(OwnTechnique):
    """What trains a `Part` of the model, always the same one."""

    def part(self, config: Config) -> Part:
        """What is trained."""
        raise NotImplementedError

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """`base` with the part trainable."""
        base.requires_grad_(False)
        for parameter in parameters_of(base, self.part(base.config.to_dict())):
            parameter.requires_grad_(True)
        return OwnWeights(base, plan, self.method)

    def trained_shapes(self, config: Config) -> list[Shape]:
        """Those of the part."""
        return part_shapes(config, self.part(config))

    def learning(self, config: Config) -> Learning:
        """Where the part lies."""
        return part_learning(config, self.part(config))

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """Forward, and backward as far as the part reaches."""
        return part_flops_per_token(config, context, labelled, self.part(config))


def parameters_of(model: Any, part: Part) -> list[Any]:
    """The parameters of a part; tied ones once."""
    from tasks.training.recompute import blocks_of

    blocks, head = blocks_of(model), model.get_output_embeddings()
    ends = {"embedding": list(model.get_input_embeddings().parameters()), "head": list(head.parameters())}
    inside = {id(p) for block in blocks for p in block.parameters()} | {id(p) for end in ends.values() for p in end}
    ends["norm"] = [p for p in model.parameters() if id(p) not in inside]
    chosen = [p for number in sorted(part.blocks) for p in blocks[number].parameters()]
    for name, parameters in ends.items():
        chosen += parameters if getattr(part, name) else []
    return list(dict.fromkeys(chosen))


def largest(config: Config, parts: list[Part]) -> Part:
    """The part that holds most."""
    return max(parts, key=lambda part: part_parameters(config, part))
