"""What decides a run's future as named tensors: trained weights, balancing biases, the optimizer's state."""

from __future__ import annotations

from typing import Any

from tasks.training.balance import balancing_state

NUMBER = "#"
"""Ends the name of a tensor that stands for a plain number."""


def graph_tensors(graph: Any) -> dict[str, Any]:
    """The tensors themselves of what a `Graph` trains, its hooks', and the balancing biases of its model."""
    return {**dict(graph.trained()), **graph.kept(), **balancing_state(graph.model)}


def state_tensors(whole: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's `state_dict()` by "index.name", index that of the parameter; plain numbers as tensors of no dimension.

    Raises:
        TypeError: the state holds something that is neither.
    """
    rows = whole["state"].items()
    named = {f"{index}.{name}": value for index, row in rows for name, value in row.items() if value is not None}
    return dict(_tensor(name, value) for name, value in named.items())


def _tensor(name: str, value: Any) -> tuple[str, Any]:
    import torch

    if isinstance(value, torch.Tensor):
        return name, value.detach()
    if isinstance(value, bool | int | float):
        kind = torch.bool if isinstance(value, bool) else torch.int64 if isinstance(value, int) else torch.float64
        return name + NUMBER, torch.tensor(value, dtype=kind)
    raise TypeError(f"optimizer state {name} is a {type(value).__name__}, which no checkpoint can hold")


def rows_of(values: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """What `state_tensors` named, as rows by index and name; copies, since a file they are mapped from may be removed."""
    rows: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        index, _, name = key.partition(".")
        plain = name.endswith(NUMBER)
        rows.setdefault(int(index), {})[name.removesuffix(NUMBER)] = value.item() if plain else value.clone()
    return rows


def load_rows(optimizer: Any, rows: dict[int, dict[str, Any]]) -> None:
    """Give an optimizer back its state by index and name; what is not in `rows` is forgotten.

    torch casts a state to its parameter's dtype; moments kept in float32 beside bfloat16 weights must stay what they were.
    """
    optimizer.load_state_dict({"state": rows, "param_groups": optimizer.state_dict()["param_groups"]})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, row in rows.items():
        own = optimizer.state[parameters[number]]
        for name, value in row.items():
            now = own.get(name)
            if getattr(now, "dtype", None) != getattr(value, "dtype", None) and hasattr(now, "device"):
                own[name] = value.to(now.device)


def host_copy(value: Any) -> Any:
    """A contiguous copy in the host's memory, which further training does not change."""
    import torch

    return torch.empty(value.shape, dtype=value.dtype, device="cpu").copy_(value.detach())
