"""Stage deploy_profile: compressed model in, deployable files and their profile under real engines out."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from tasks.core.schema import Section
from tasks.deploy_profile.engines import ENGINES

GGUF_ARCHITECTURES = ("LlamaForCausalLM",)
"""transformers' classes that can be written as GGUF here."""


class DeployProfile(Section):
    """What is delivered, and how it behaves where it runs."""

    gguf: list[Literal["F16", "Q8_0", "Q4_0"]] = Field(default=["F16", "Q8_0", "Q4_0"])
    """GGUF files to write, by llama.cpp's name of the weight type; [] where the architecture has none."""
    serve: Literal["F16", "Q8_0", "Q4_0", "safetensors"] = "Q8_0"
    """What is delivered: a GGUF, profiled under llama.cpp and registered, or `safetensors`, for transformers."""
    engines: list[str] = Field(default=["transformers", "llama_cpp"], min_length=1)
    """Engines to profile under, each in a fresh process."""
    prompt_tokens: PositiveInt = 64
    """Length of the prompt."""
    max_new_tokens: int = Field(default=48, ge=2)
    """Tokens to generate per repeat."""
    warmup: PositiveInt = 1
    """Generations that are run and not counted."""
    repeats: PositiveInt = 5
    """Generations that are measured."""

    @field_validator("gguf", "engines")
    @classmethod
    def _distinct(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError(f"each may be named once, found {', '.join(names)}")
        return names

    @field_validator("engines")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in ENGINES:
                raise ValueError(f"engine '{name}' is not one of {', '.join(ENGINES)}")
        return names

    @model_validator(mode="after")
    def _written(self) -> Self:
        if self.serve not in (*self.gguf, "safetensors"):
            written = ", ".join((*self.gguf, "safetensors"))
            raise ValueError(f"serve {self.serve}: only what is written can be served: {written}")
        if self.serve == "safetensors" and (deaf := [n for n in self.engines if ENGINES[n].reads == "gguf"]):
            raise ValueError(
                f"serve safetensors: engines {', '.join(deaf)} read GGUF alone; set engines: [transformers]"
            )
        return self
