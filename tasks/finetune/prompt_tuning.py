"""Prompt tuning: the embeddings of virtual tokens in front of every text are learned, nothing else."""

from __future__ import annotations

from typing import Any, Literal

from tasks.finetune.shared.soft_prompt import SoftPrompt, peft_made
from tasks.finetune.technique import Plan, Shape, Tuning
from tasks.models import Config


class PromptTuning(SoftPrompt):
    """Learned embeddings in front of every text (arXiv:2104.08691)."""

    prompt_tuning_init: Literal["RANDOM", "SAMPLE_VOCAB", "TEXT"] = "SAMPLE_VOCAB"
    """First values: random numbers, embeddings of random tokens, or those of `prompt_tuning_init_text`."""
    prompt_tuning_init_text: str = "Answer as well as you can."
    """Text to begin with, repeated or cut to the number of virtual tokens, where `prompt_tuning_init` is TEXT."""

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """A `PeftModel` of which only the virtual tokens are trained."""
        tuning = super().begin(base, plan)
        # the first values are there: what made them, a folder of this machine, is nothing to deliver
        made = tuning.model.active_peft_config
        made.prompt_tuning_init, made.tokenizer_name_or_path = "RANDOM", None
        return tuning

    def peft_config(self, base: Any, plan: Plan) -> Any:
        """A `peft.PromptTuningConfig`."""
        text = self.prompt_tuning_init == "TEXT"
        return peft_made(
            "PromptTuningConfig",
            self,
            tokenizer_name_or_path=str(plan.base) if text else None,
            prompt_tuning_init_text=self.prompt_tuning_init_text if text else None,
        )

    def trained_shapes(self, config: Config) -> list[Shape]:
        """The embeddings."""
        return self.adapter_shapes(config)
