"""What others would have predicted: their published formulas, given the peaks that were measured on this machine.

- 6ND: FLOPs = 6 x parameters x tokens (arXiv:2001.08361, section 2.1), two thirds of it backward; time = FLOPs / peak.
- llm-analysis (github.com/cli99/llm-analysis, commit d841e40, `llm_analysis/analysis.py`): per layer
  max(FLOPs / peak, (weights + activations) / bandwidth) for attention and feed-forward, norms at the bandwidth, output
  layer at the peak, input embedding read once; backward twice the forward pass. Efficiencies 1: the peaks are measured.
- LLM-Viewer (github.com/hahnyuan/LLM-Viewer, commit 472f71f, `model_analyzer.py`, arXiv:2402.16363): a roofline for every
  operator of prefill and decoding, summed; it has no training.

None of them has an answer for a process's resident memory on a CPU, for a compression, or for the data stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.ledger.machine import Machine

Config = dict[str, Any]


@dataclass(frozen=True)
class Peaks:
    """What everybody is given: FLOP/s of the type that is used, bytes/s of the memory, cores."""

    flops: float
    bandwidth: float
    cores: int

    @classmethod
    def of(cls, machine: Machine, dtype: str) -> Peaks:
        """The measured ones."""
        return cls(machine.gemm_flops_per_second[dtype], machine.bandwidth_bytes_per_second, machine.cores)


def six_nd(parameters: int, tokens: float, peaks: Peaks) -> dict[str, float]:
    """Training of `tokens` tokens."""
    flops = 6.0 * parameters * tokens
    return _training(flops, flops / peaks.flops, peaks)


def two_n(parameters: int, peaks: Peaks) -> dict[str, float]:
    """Decoding by the forward third of it."""
    return {"decode_tokens_per_second": peaks.flops / (2.0 * parameters)}


def _training(flops: float, seconds: float, peaks: Peaks) -> dict[str, float]:
    return {"flops": flops, "training_seconds": seconds, "cpu_seconds": seconds * peaks.cores}


def is_llama(config: Config) -> bool:
    """Whether the peers' formulas are about this architecture at all."""
    return config.get("model_type") in ("llama", "mistral")


def llm_analysis_training(config: Config, batch: int, length: int, steps: int, peaks: Peaks) -> dict[str, float]:
    """`training`: three forward passes' worth of FLOPs and time per step, no recomputation."""
    flops = 3 * _forward_flops(config, batch, length) * steps
    return _training(flops, 3 * _forward_seconds(config, batch, length, peaks, 4, training=True) * steps, peaks)


def llm_analysis_decode(config: Config, position: int, peaks: Peaks, weight_bytes: float) -> dict[str, float]:
    """`inference`: one token's forward pass, and the time to load the keys and values before it."""
    width, groups = config["hidden_size"], config["num_attention_heads"] // config["num_key_value_heads"]
    cache = 2.0 * config["num_hidden_layers"] * position * width / groups * 2 / peaks.bandwidth
    seconds = _forward_seconds(config, 1, 1, peaks, weight_bytes, training=False) + cache
    return {"decode_tokens_per_second": 1 / seconds}


def _attention_flops(config: Config, batch: int, length: int) -> float:
    width = config["hidden_size"]
    groups = config["num_attention_heads"] / config["num_key_value_heads"]
    return float(batch * length * width * (4.0 * width + 4.0 * width / groups + 4.0 * length))


def _mlp_flops(config: Config, batch: int, length: int) -> float:
    return float(6.0 * batch * length * config["hidden_size"] * config["intermediate_size"])


def _forward_flops(config: Config, batch: int, length: int) -> float:
    layer = _attention_flops(config, batch, length) + _mlp_flops(config, batch, length)
    head = 2.0 * batch * length * config["hidden_size"] * config["vocab_size"]
    return float(config["num_hidden_layers"] * layer + head)


def _forward_seconds(
    config: Config, batch: int, length: int, peaks: Peaks, weight_bytes: float, training: bool
) -> float:
    """`get_latency_fwd` on one device, FlashAttention, activations in 2 bytes."""
    width, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    tokens, ratio = batch * length, inner / width
    groups = heads / config["num_key_value_heads"]
    attention_weights = (2 + 2 / groups) * width * width * weight_bytes
    fused = (2 * width + 4 * heads) * tokens * 2.0
    attention_kept = tokens * width * (5 * 2 + 1) + fused if training else max(3 * 2.0 * tokens * width, fused)
    mlp_kept = tokens * width * 2 * ((1 + 2 * ratio) if training else max(1.0, ratio))
    layer = max(
        _attention_flops(config, batch, length) / peaks.flops, (attention_weights + attention_kept) / peaks.bandwidth
    )
    mlp_weights = 3.0 * width * inner * weight_bytes
    layer += max(_mlp_flops(config, batch, length) / peaks.flops, (mlp_weights + mlp_kept) / peaks.bandwidth)
    layer += 2 * max(5.0 * tokens * width / peaks.flops, 4.0 * tokens * width / peaks.bandwidth)
    embedding = config["vocab_size"] * width * weight_bytes / peaks.bandwidth
    return float(
        config["num_hidden_layers"] * layer + embedding + 2.0 * tokens * width * config["vocab_size"] / peaks.flops
    )


def llm_viewer_decode(config: Config, position: int, peaks: Peaks, weight_bytes: float) -> dict[str, float]:
    """`analyze`, stage decode, batch 1, unfused attention, activations and cache in 2 bytes."""
    act = 2.0
    width, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    key_heads, size = config["num_key_value_heads"], config["hidden_size"] // config["num_attention_heads"]
    key = width * key_heads / heads
    linear = (
        (width, width),
        (width, key),
        (width, key),
        (width, width),
        (width, inner),
        (width, inner),
        (inner, width),
    )
    work = [(2.0 * i * o, i * o * weight_bytes + (i + o) * act) for i, o in linear]
    scored, read = 2.0 * position * width, position * size * key_heads * act
    work += [
        (scored, width * act + position * heads * act + read),
        (scored, position * heads * act + width * act + read),
        (5.0 * heads * position, 2 * heads * position * act),
        *[(7.0 * width, 2 * width * act)] * 2,
        *[(1.0 * width, 2 * width * act)] * 2,
        (2.0 * width, 3 * width * act),
    ]
    layer = sum(max(flops / peaks.flops, size / peaks.bandwidth) for flops, size in work)
    vocab = config["vocab_size"]
    head = max(width * vocab / peaks.flops, (width * vocab * weight_bytes + (width + vocab) * act) / peaks.bandwidth)
    return {"decode_tokens_per_second": 1 / (config["num_hidden_layers"] * layer + head)}
