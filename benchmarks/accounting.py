"""Every architecture family: what the arithmetic says before anything runs, beside what transformers builds and executes.

`python benchmarks/accounting.py` prints the table as Markdown: parameters, forward and training FLOPs, cache bytes,
each analytic and counted. Sizes are each family's own default, with a vocabulary of 4,096.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tasks import accounting
from tasks.design import Design
from tasks.design.family import Family
from tasks.models import Config
from tasks.models.load import new_model
from tasks.training.flops import counting

VOCABULARY, CONTEXT = 4096, 300
"""The context fills no chunk and exceeds the default windows, on purpose."""


def main() -> None:
    """Print the table."""
    print("| family | quantity | analytic | counted | ratio |")
    print("|---|---|---|---|---|")
    for method, family in Design.techniques().items():
        if issubclass(family, Family):
            for quantity, analytic, counted in rows(family().config(VOCABULARY)):
                print(f"| {method} | {quantity} | {analytic:,.0f} | {counted:,.0f} | {ratio(analytic, counted)} |")
                sys.stdout.flush()


def ratio(analytic: float, counted: float) -> str:
    """Analytic over counted."""
    return f"{analytic / counted:.4f}" if counted else "-"


def rows(config: Config) -> Iterator[tuple[str, float, float]]:
    """Quantity, analytic, counted."""
    model = new_model(config, seed=0)
    yield "parameters", accounting.parameters(config), sum(p.numel() for p in model.parameters())
    forward = accounting.forward_flops_per_token(config, CONTEXT) * CONTEXT
    yield f"forward FLOPs, {CONTEXT} tokens", forward, executed(model, backward=False)
    training = accounting.training_flops_per_token(config, CONTEXT) * CONTEXT
    yield f"training FLOPs, {CONTEXT} tokens", training, executed(model.train(), backward=True)
    yield f"cache bytes, {CONTEXT} tokens", accounting.cache_bytes(config, CONTEXT, 4), cached(model.eval())


def executed(model: Any, backward: bool) -> float:
    """FLOPs of one sequence."""
    import torch

    ids = torch.zeros(1, CONTEXT, dtype=torch.long)
    with counting() as counter:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        if backward:
            loss.backward()
    return counter.total


def cached(model: Any) -> int:
    """Bytes of every tensor transformers keeps of one sequence."""
    import torch

    with torch.inference_mode():
        output = model(input_ids=torch.zeros(1, CONTEXT, dtype=torch.long), use_cache=True)
    kept = next(output[name] for name in ("past_key_values", "cache_params", "state") if output.get(name) is not None)
    return sum(tensor.nbytes for tensor in tensors(kept))


def tensors(thing: Any) -> Iterator[Any]:
    """Every tensor of numbers inside caches, their layers, lists and dictionaries; counters are none."""
    import torch

    if isinstance(thing, torch.Tensor):
        if thing.is_floating_point():
            yield thing
    elif isinstance(thing, list | tuple):
        for part in thing:
            yield from tensors(part)
    elif isinstance(thing, dict):
        yield from tensors(list(thing.values()))
    elif hasattr(thing, "layers"):
        yield from tensors([vars(layer) for layer in thing.layers])


if __name__ == "__main__":
    main()
