"""The engines a model is profiled under: a file and a line in `ENGINES` each, one way of being asked and answering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Entry:
    """Where an engine is, the package it needs, and which of the stage's files it reads."""

    module: str
    package: str
    reads: Literal["safetensors", "gguf"]


ENGINES: dict[str, Entry] = {
    "transformers": Entry("tasks.deploy_profile.engines.engine_transformers", "transformers", "safetensors"),
    "llama_cpp": Entry("tasks.deploy_profile.engines.engine_llama_cpp", "xllamacpp", "gguf"),
}
"""Name in `deploy_profile.engines` -> entry. The module's `load(request)` gives an `Engine`."""

REFERENCE = "transformers"
"""The engine that the others' speed and tokens are held against."""


@dataclass(frozen=True)
class Request:
    """What an engine's process is asked to do.

    Attributes:
        model: folder or file, as the engine reads it.
        prompt: token ids.
        max_new_tokens: how many tokens every generation makes, exactly.
        forbidden: ids that are never generated, so that no generation ends early.
        warmup: generations that are not counted.
        repeats: generations that are.
        threads: processor threads to use.
        texts: to be tokenized by the engine's own tokenizer.
    """

    model: str
    prompt: list[int]
    max_new_tokens: int
    forbidden: list[int]
    warmup: int
    repeats: int
    threads: int
    texts: list[str]


@dataclass(frozen=True)
class Stamp:
    """So many new tokens were there so many seconds after the prompt was handed over."""

    seconds: float
    tokens: int


class Engine(Protocol):
    """A loaded model."""

    device: str
    version: str

    def tokens(self, prompt: list[int], count: int) -> list[int]:
        """The `count` greedy ids after `prompt`; not timed."""
        ...

    def generate(self, prompt: list[int], count: int) -> list[Stamp]:
        """Generate `count` greedy tokens with nothing kept from earlier calls; the first stamp is the first token's."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text in which special tokens are recognised and none is added."""
        ...

    def device_bytes(self) -> int | None:
        """Peak memory allocated on an accelerator; None without one."""
        ...


@dataclass(frozen=True)
class Generation:
    """One measured generation: its stamps, and the processor seconds of the whole process meanwhile."""

    stamps: list[Stamp]
    cpu_seconds: float


@dataclass(frozen=True)
class Outcome:
    """What an engine's process reports.

    Attributes:
        version: the engine's package and version.
        device: where it ran.
        import_seconds: time to import its library.
        load_seconds: time to load the model after that.
        tokens: greedy ids after the prompt.
        tokenized: ids of each of the request's texts.
        generations: the measured ones.
        peak_memory_bytes: largest resident set of the process.
        device_bytes: peak memory on an accelerator, or None.
        busy_elsewhere: share of the machine's processors that others used during the generations; None if unreadable.
    """

    version: str
    device: str
    import_seconds: float
    load_seconds: float
    tokens: list[int]
    tokenized: list[list[int]]
    generations: list[Generation]
    peak_memory_bytes: int
    device_bytes: int | None
    busy_elsewhere: float | None
