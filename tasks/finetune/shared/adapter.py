"""Techniques that peft knows: an adapter beside a frozen base."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from tasks.finetune.technique import FinetuneTechnique, Plan, Shape, Tuning
from tasks.models import Config
from tasks.models.soft_prompt import place_texts


class PeftTuning(Tuning):
    """A `peft.PeftModel` at work."""

    def __init__(self, model: Any, merges: bool) -> None:
        super().__init__(model)
        self._merges = merges
        place_texts(model)

    def write(self, folder: Path) -> bool:
        """The adapter as peft writes it, the same bytes for the same adapter."""
        self.settled()
        self.model.save_pretrained(folder)
        return True

    def settled(self) -> None:
        """Put what peft keeps as sets into an order that is the same in every process."""
        for config in self.model.peft_config.values():
            for field in ("target_modules", "feedforward_modules"):
                if isinstance(getattr(config, field, None), set):
                    setattr(config, field, sorted(getattr(config, field)))

    def merged(self) -> Any | None:
        """The base model with the adapter in its weights."""
        return self.model.merge_and_unload() if self._merges else None


class PeftTechnique(FinetuneTechnique):
    """What is a `peft.PeftConfig`; its fields are this technique's, by the same names.

    Attributes:
        fixed: whether a pass does work on its weights alone, before tokens meet them.
    """

    fixed: ClassVar[bool] = False

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """A `PeftModel` of which only the adapter is trained."""
        from peft import get_peft_model

        tuning = PeftTuning(get_peft_model(base, self.peft_config(base, plan)), self.merges)
        tuning.fixed = self.fixed
        return tuning

    def adapter_shapes(self, config: Config) -> list[Shape]:
        """What is trained is what is delivered."""
        return self.trained_shapes(config)

    def peft_config(self, base: Any, plan: Plan) -> Any:
        """The `peft.PeftConfig` for this base.

        Raises:
            ValueError: it doesn't fit.
        """
        raise NotImplementedError
