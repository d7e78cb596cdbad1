"""Stage deploy_profile: compressed model in, deployable files and their profile under real engines out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, ValidationInfo, field_validator

from tasks.core.schema import Section
from tasks.deploy_profile.engines import ENGINES


class DeployProfile(Section):
    """What is delivered, and how it behaves where it runs."""

    gguf: list[Literal["F16", "Q8_0", "Q4_0"]] = Field(default=["F16", "Q8_0", "Q4_0"], min_length=1)
    """GGUF files to write, by llama.cpp's name of the weight type."""
    serve: Literal["F16", "Q8_0", "Q4_0"] = "Q8_0"
    """The GGUF that is delivered: profiled under llama.cpp and registered."""
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

    @field_validator("serve")
    @classmethod
    def _written(cls, serve: str, info: ValidationInfo) -> str:
        written = info.data.get("gguf", [serve])
        if serve not in written:
            raise ValueError(f"only a file that deploy_profile.gguf lists can be served: {', '.join(written)}")
        return serve
