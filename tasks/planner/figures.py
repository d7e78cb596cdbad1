"""What a whole lifecycle is predicted to need, as the figures that limits are set on."""

from __future__ import annotations

from tasks import accounting
from tasks.core.errors import UserError
from tasks.core.measure import Metrics
from tasks.ledger.machine import Machine
from tasks.models import Config
from tasks.params import Params
from tasks.planner.constraints import Figure

HOST_ONLY = ("data", "design")
"""Stages that never touch an accelerator, and so none of its memory."""

SUMS: dict[Figure, str] = {
    "flops": "flops",
    "seconds": "wall_seconds",
    "joules": "energy_joules",
    "dollars": "dollars",
}
"""Figure -> the metric that is added up over the stages, as the budget does."""

LLAMA_CPP_BYTES = 58 << 20
"""Resident set of a llama.cpp process beside weights and cache (the default preset's report, November 2026)."""

TRANSFORMERS_BYTES = 600 << 20
"""The same of a process with torch and transformers."""


def figures(
    plan: dict[str, Metrics], params: Params, config: Config, machine: Machine, context: int | None
) -> dict[Figure, float | None]:
    """Every figure but quality; None where it can't be predicted.

    Args:
        plan: every stage's prediction.
        params: the whole configuration.
        config: transformers' config of its model.
        machine: measured rates.
        context: tokens in the cache at inference; None: those of the profile.

    Raises:
        UserError: nothing can be predicted; says why.
    """
    first = plan["pretrain"]["wall_seconds"]
    if first.value is None:
        raise UserError(first.note)
    found: dict[Figure, float | None] = {figure: total(plan, metric) for figure, metric in SUMS.items()}
    on_device = plan.items() if machine.device == "cpu" else [(s, m) for s, m in plan.items() if s not in HOST_ONLY]
    peaks = [peak(metrics, machine) for _, metrics in on_device]
    found["training_memory_bytes"] = max((value for value in peaks if value is not None), default=None)
    return found | inference(plan, params, config, machine, context)


def total(plan: dict[str, Metrics], metric: str) -> float | None:
    """Sum over the stages; None if one of them can't be predicted."""
    values = [metrics[metric].value for metrics in plan.values() if metric in metrics]
    known = [float(value) for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def peak(metrics: Metrics, machine: Machine) -> float | None:
    """Largest memory of a stage: of the device where that has its own, else of the process."""
    own = metrics.get("peak_device_memory_bytes") if machine.device != "cpu" else None
    value = own.value if own is not None and own.value is not None else metrics["peak_memory_bytes"].value
    return None if value is None else float(value)


def engine_of(params: Params) -> str:
    """What the finished model is served by: llama.cpp where it is profiled, else the first engine."""
    profile = params.deploy_profile
    return "llama_cpp" if profile.gguf and "llama_cpp" in profile.engines else profile.engines[0]


def inference(
    plan: dict[str, Metrics], params: Params, config: Config, machine: Machine, context: int | None
) -> dict[Figure, float | None]:
    """Bytes of the weights that are served, memory of the engine, and seconds of a generated token.

    The profile's own prompt is short: what a longer context adds is its cache, kept and read once per token.
    """
    metrics, profile, engine = plan["deploy_profile"], params.deploy_profile, engine_of(params)
    file = "safetensors" if engine == "transformers" else profile.serve
    weights = metrics[f"model_bytes/{file}"].value
    rate = metrics[f"decode_tokens_per_second/{engine}"].value
    if weights is None or not rate:
        return {"model_bytes": weights, "memory_bytes": None, "seconds_per_token": None}
    told = profile.prompt_tokens + profile.max_new_tokens
    before, after = (accounting.cache_bytes(config, length) for length in (told, context or told))
    process = LLAMA_CPP_BYTES if engine == "llama_cpp" else TRANSFORMERS_BYTES
    known = metrics.get(f"peak_memory_bytes/{engine}")
    memory = known.value if known is not None and known.value is not None else process + weights + before
    bandwidth = machine.host_bandwidth_bytes_per_second if engine == "llama_cpp" else machine.bandwidth_bytes_per_second
    extra = max(0, after - before)
    return {
        "model_bytes": float(weights),
        "memory_bytes": float(memory + extra),
        "seconds_per_token": 1 / rate + extra / bandwidth,
    }
