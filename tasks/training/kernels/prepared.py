"""Everything that makes a run of the loop quick, put on before it and taken off after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tasks.training.settings import Settings


@contextmanager
def prepared(model: Any, settings: Settings) -> Iterator[None]:
    """Train `model` inside on the quickest path there is here for these settings; afterwards the model is as it was."""
    from tasks.training.kernels.attention import blockwise
    from tasks.training.kernels.compiled import compiled
    from tasks.training.kernels.heap import keep
    from tasks.training.kernels.low_rank import low_rank

    keep()
    with ExitStack() as stack:
        stack.enter_context(blockwise(model))
        if (
            settings.gradient_checkpointing != "selective"
        ):  # which keeps products, and none of these is left as it was made
            stack.enter_context(low_rank(model))
        if settings.compile:
            stack.enter_context(compiled(model))
        yield
