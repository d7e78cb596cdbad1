"""From what the engines' processes report to the ledger's metrics. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from tasks.core.measure import Metrics, Value, counted, measured, missing, modelled
from tasks.deploy_profile.engines import REFERENCE, Generation, Outcome

BUSY = 0.1
"""Share of the machine taken by others from which on a note says so."""


def latencies(generation: Generation) -> list[float]:
    """Seconds between tokens; tokens that arrived together share their time evenly."""
    found: list[float] = []
    for before, after in zip(generation.stamps, generation.stamps[1:], strict=False):
        count = after.tokens - before.tokens
        found += [(after.seconds - before.seconds) / count] * count
    return found


def engine_metrics(name: str, outcome: Outcome, prompt_tokens: int, warmup: int) -> Metrics:
    """Latency, rates, memory and processor time of one engine, qualified by its name."""
    first = [generation.stamps[0].seconds for generation in outcome.generations]
    gaps = [latencies(generation) for generation in outcome.generations]
    rates = [len(each) / sum(each) for each in gaps]
    cpu = [g.cpu_seconds / g.stamps[-1].tokens for g in outcome.generations]
    how = _circumstances(outcome, warmup)
    metrics = {
        "load_seconds": measured(
            outcome.load_seconds,
            f"the model alone; importing {outcome.version} took {outcome.import_seconds:.3g} s before",
        ),
        "time_to_first_token_seconds": _middle(first, how),
        "prefill_tokens_per_second": _middle([prompt_tokens / seconds for seconds in first], how),
        "decode_tokens_per_second": _middle(rates, how),
        "cpu_seconds_per_token": _middle(cpu, f"of all threads, the prompt's share included; {how}"),
        "peak_memory_bytes": measured(
            outcome.peak_memory_bytes, "largest resident set of the engine's own process, mapped files included"
        ),
    }
    for percent in (50, 95, 99):
        each = [float(np.percentile(one, percent)) for one in gaps]
        everything = float(np.percentile(np.concatenate(gaps), percent))
        note = f"{sum(map(len, gaps))} gaps, {_spread(each)} between repeats; {how}"
        metrics[f"inter_token_latency_p{percent}_seconds"] = measured(everything, note)
    if outcome.device_bytes is not None:
        metrics["peak_device_memory_bytes"] = measured(outcome.device_bytes, "the allocator's count")
    return {f"{metric}/{name}": value for metric, value in metrics.items()}


def comparison(name: str, outcomes: dict[str, Outcome], own: Metrics, what: str) -> Metrics:
    """Speed-up and greedy agreement of an engine beside the reference engine.

    Args:
        name: the engine.
        outcomes: every engine's.
        own: metrics of all engines so far.
        what: the files the two ran, for the note.
    """
    if REFERENCE not in outcomes:
        absent = missing(f"{REFERENCE} is not among deploy_profile.engines")
        return {f"speedup/{name}": absent, f"greedy_agreement/{name}": absent}
    rates = [own[f"decode_tokens_per_second/{engine}"].value or 0.0 for engine in (name, REFERENCE)]
    pairs = list(zip(outcomes[name].tokens, outcomes[REFERENCE].tokens, strict=True))
    same = [one == other for one, other in pairs]
    parting = f"first difference at token {same.index(False) + 1}" if False in same else "no difference"
    return {
        f"speedup/{name}": measured(rates[0] / rates[1], f"decoding rate beside {REFERENCE}; {what}"),
        f"greedy_agreement/{name}": measured(sum(same) / len(same), f"{len(same)} tokens, {parting}; {what}"),
    }


def mbu(rate: Value, bytes_per_token: int, bandwidth: float | None) -> Value:
    """Share of the memory bandwidth that decoding uses.

    Args:
        rate: tokens per second.
        bytes_per_token: weight bytes one token reads.
        bandwidth: of the machine, bytes per second; None where it was not measured.
    """
    if bandwidth is None or rate.value is None:
        return missing("the machine's memory bandwidth was not measured")
    note = f"decode_tokens_per_second x {bytes_per_token} B of weights / {bandwidth:.4g} B/s measured; no KV cache"
    return modelled(rate.value * bytes_per_token / bandwidth, note)


def file_metrics(sizes: dict[str, int], notes: dict[str, str], serve: str) -> Metrics:
    """Bytes of every deployable form by its type, and of the one that is delivered."""
    metrics: Metrics = {f"model_bytes/{kind}": counted(size, notes.get(kind, "")) for kind, size in sizes.items()}
    whole = f"the {serve} GGUF: weights, tokenizer and chat template"
    delivered = counted(sizes[serve], "weights (*.safetensors)" if serve == "safetensors" else whole)
    return metrics | {"delivery_bytes": delivered}


def _circumstances(outcome: Outcome, warmup: int) -> str:
    parts = [f"median of {len(outcome.generations)} after {warmup} not counted", outcome.device]
    if outcome.busy_elsewhere is not None and outcome.busy_elsewhere > BUSY:
        parts.append(f"others used {outcome.busy_elsewhere:.0%} of the machine meanwhile")
    return ", ".join(parts)


def _middle(values: Sequence[float], how: str) -> Value:
    return measured(median(values), f"{_spread(values)}; {how}")


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.4g}..{max(values):.4g}"
