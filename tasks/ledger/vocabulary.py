"""The vocabulary: a metric is here, with unit, direction and definition, or it isn't written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Resource = Literal["computation", "memory", "energy", "money", "network", "quality"]


@dataclass(frozen=True)
class Metric:
    """One metric. `better` is the direction of improvement, or "" where there is none."""

    name: str
    resource: Resource
    unit: str
    better: Literal["lower", "higher", ""]
    definition: str
    source: str


SURVEY = "arXiv:2401.00625, section 9"
OWN = "this project"

_METRICS = (
    Metric(
        "flops", "computation", "FLOP", "lower", "Floating-point operations of the stage's matrix products.", SURVEY
    ),
    Metric("forward_flops_per_token", "computation", "FLOP/token", "lower", "Forward pass, full context.", SURVEY),
    Metric("training_flops_per_token", "computation", "FLOP/token", "lower", "Forward and backward pass.", SURVEY),
    Metric("decode_flops_per_token", "computation", "FLOP/token", "lower", "One generated token.", SURVEY),
    Metric("wall_seconds", "computation", "s", "lower", "Elapsed time of the stage, all attempts.", SURVEY),
    Metric("cpu_seconds", "computation", "s", "lower", "Processor time of the stage's processes, all attempts.", OWN),
    Metric("cpu_seconds_per_token", "computation", "s/token", "lower", "Processor time per generated token.", OWN),
    Metric("attempts", "computation", "", "lower", "Processes it took, interrupted ones included.", OWN),
    Metric("repeated_steps", "computation", "", "lower", "Steps done again after a kill or a roll-back.", OWN),
    Metric("best_step", "computation", "", "", "Step whose weights early stopping went back to.", OWN),
    Metric("skipped_batches", "computation", "", "lower", "Batches left out: the loss spiked or was no number.", OWN),
    Metric("overflowed_steps", "computation", "", "lower", "Steps without an update: a gradient was beyond fp16.", OWN),
    Metric("training_seconds", "computation", "s", "lower", "Elapsed time of the optimizer steps alone.", SURVEY),
    Metric("evaluation_seconds", "computation", "s", "lower", "Elapsed time of evaluating quality.", OWN),
    Metric("tokens", "computation", "token", "", "Tokens trained on.", OWN),
    Metric(
        "tokens_per_second", "computation", "token/s", "higher", "Tokens trained on per second of training.", SURVEY
    ),
    Metric("flops_per_second", "computation", "FLOP/s", "higher", "FLOPs of training per second of training.", SURVEY),
    Metric(
        "mfu", "computation", "", "higher", "Share of the machine's measured matrix-product rate.", "arXiv:2204.02311"
    ),
    Metric("load_seconds", "computation", "s", "lower", "From a started engine to a loaded model.", SURVEY),
    Metric("time_to_first_token_seconds", "computation", "s", "lower", "Prompt in, first token out: median.", SURVEY),
    Metric("inter_token_latency_p50_seconds", "computation", "s", "lower", "Time between tokens: median.", SURVEY),
    Metric(
        "inter_token_latency_p95_seconds", "computation", "s", "lower", "Time between tokens: 95th percentile.", SURVEY
    ),
    Metric(
        "inter_token_latency_p99_seconds", "computation", "s", "lower", "Time between tokens: 99th percentile.", SURVEY
    ),
    Metric(
        "decode_tokens_per_second", "computation", "token/s", "higher", "Generated tokens per second: median.", SURVEY
    ),
    Metric(
        "prefill_tokens_per_second", "computation", "token/s", "higher", "Prompt tokens per second: median.", SURVEY
    ),
    Metric("mbu", "computation", "", "higher", "Share of the machine's measured memory bandwidth in decoding.", OWN),
    Metric("speedup", "computation", "x", "higher", "Decoding rate beside the reference engine's.", SURVEY),
    Metric("parameters", "memory", "", "lower", "Parameters, tied ones once.", SURVEY),
    Metric("embedding_parameters", "memory", "", "", "Parameters of input embedding and output layer.", OWN),
    Metric("active_parameters", "memory", "", "lower", "Parameters one token passes through.", OWN),
    Metric("trainable_parameters", "memory", "", "lower", "Parameters that were trained.", SURVEY),
    Metric("nonzero_parameters", "memory", "", "lower", "Parameters that are not zero.", OWN),
    Metric("model_bytes", "memory", "B", "lower", "Bytes of the model's weight files.", SURVEY),
    Metric("adapter_bytes", "memory", "B", "lower", "Bytes of the adapter's weight file.", OWN),
    Metric("peak_memory_bytes", "memory", "B", "lower", "Largest resident set of the stage's processes.", SURVEY),
    Metric("peak_device_memory_bytes", "memory", "B", "lower", "Largest memory allocated on the accelerator.", SURVEY),
    Metric("optimizer_bytes", "memory", "B", "lower", "Bytes of the optimizer's state.", OWN),
    Metric("activation_bytes", "memory", "B", "lower", "Kept by one training step for its backward pass.", OWN),
    Metric("checkpoint_bytes", "memory", "B", "lower", "A training checkpoint: weights and optimizer state.", OWN),
    Metric("teacher_cache_bytes", "memory", "B", "lower", "Disk that what a teacher said takes in training.", OWN),
    Metric("cache_bytes", "memory", "B", "lower", "Keys, values and states of one sequence at full context.", OWN),
    Metric("kv_cache_bytes_per_token", "memory", "B/token", "lower", "Growth of the key-value cache.", OWN),
    Metric("compression_ratio", "memory", "x", "higher", "Model bytes before, divided by after.", SURVEY),
    Metric("energy_joules", "energy", "J", "lower", "Electrical energy of the stage.", SURVEY),
    Metric("energy_per_token_joules", "energy", "J/token", "lower", "Energy per generated token.", SURVEY),
    Metric("carbon_kg_co2e", "energy", "kg", "lower", "Greenhouse gas of that energy.", SURVEY),
    Metric("dollars", "money", "$", "lower", "Rent of the machine plus electricity.", SURVEY),
    Metric("dollars_per_million_tokens", "money", "$", "lower", "Cost of a million generated tokens.", OWN),
    Metric("dollars_per_parameter", "money", "$", "lower", "Cost of the stage per parameter of the model.", SURVEY),
    Metric("communication_bytes", "network", "B", "lower", "Bytes exchanged between workers.", SURVEY),
    Metric(
        "communication_bytes_per_step",
        "network",
        "B",
        "lower",
        "Gradients and weights a worker sends per step.",
        SURVEY,
    ),
    Metric("delivery_bytes", "network", "B", "lower", "Bytes that cross a network to deliver the result.", OWN),
    Metric("train_bytes", "quality", "B", "", "UTF-8 bytes of the training text.", OWN),
    Metric("train_tokens", "quality", "token", "", "Tokens of the training text.", OWN),
    Metric(
        "bytes_per_token", "quality", "B/token", "higher", "Held-out bytes per token: the tokenizer's compression.", OWN
    ),
    Metric("documents", "quality", "", "", "Documents kept.", OWN),
    Metric("duplicates_dropped", "quality", "", "", "Documents dropped as exact duplicates.", OWN),
    Metric("near_duplicates_dropped", "quality", "", "", "Training documents dropped as near-duplicates.", OWN),
    Metric("quality_dropped", "quality", "", "", "Training documents dropped for their quality.", OWN),
    Metric("importance_dropped", "quality", "", "", "Training documents dropped as unlike the target.", OWN),
    Metric("bytes_dropped", "quality", "B", "", "UTF-8 bytes of the training documents dropped by choice.", OWN),
    Metric(
        "contaminated_documents",
        "quality",
        "",
        "lower",
        "Test documents that share a long n-gram of words with the training text.",
        "arXiv:2005.14165, appendix C",
    ),
    Metric("unreadable_dropped", "quality", "", "", "Files dropped as empty, binary or wrongly encoded.", OWN),
    Metric("instructions", "quality", "", "", "Chat examples kept.", OWN),
    Metric("preferences", "quality", "", "", "Pairs of a chosen and a rejected answer kept.", OWN),
    Metric("unpaired", "quality", "", "", "Answers with a label, liked or not, kept.", OWN),
    Metric("verifiable", "quality", "", "", "Prompts whose answer can be checked, kept.", OWN),
    Metric("rows_dropped", "quality", "", "", "Rows for finetuning left out: no, empty or refused answers.", OWN),
    Metric("rows_moved", "quality", "", "", "Rows sent to the split of their near-duplicates.", OWN),
    Metric("chats_dropped", "quality", "", "lower", "Chat examples left out as too long or without an answer.", OWN),
    Metric("gzip_bits_per_byte", "quality", "bit/B", "lower", "gzip -9 on the same held-out bytes: a floor.", OWN),
    Metric("xz_bits_per_byte", "quality", "bit/B", "lower", "xz -9e on the same held-out bytes: a floor.", OWN),
    Metric("train_loss", "quality", "nat/token", "lower", "Loss of the last training steps.", SURVEY),
    Metric("validation_loss", "quality", "nat/token", "lower", "Loss on validation data (finetune: answers).", SURVEY),
    Metric("validation_loss_before", "quality", "nat/token", "lower", "The same before the stage.", SURVEY),
    Metric(
        "objective_loss", "quality", "", "lower", "The last training steps' own loss, where that isn't text's.", OWN
    ),
    Metric("preference_loss", "quality", "nat", "lower", "Loss of held-out rows under the preference objective.", OWN),
    Metric("preference_loss_before", "quality", "nat", "lower", "The same before the stage.", OWN),
    Metric(
        "reward_accuracy",
        "quality",
        "",
        "higher",
        "Share of held-out pairs whose better answer has the higher reward.",
        "arXiv:2305.18290",
    ),
    Metric("reward_accuracy_before", "quality", "", "higher", "The same before the stage.", OWN),
    Metric(
        "reward_margin", "quality", "nat", "higher", "Reward of better answers less that of worse.", "arXiv:2305.18290"
    ),
    Metric("reward_margin_before", "quality", "nat", "higher", "The same before the stage.", OWN),
    Metric("mean_reward", "quality", "", "higher", "Mean reward of sampled answers to held-out questions.", OWN),
    Metric("mean_reward_before", "quality", "", "higher", "The same before the stage.", OWN),
    Metric("completion_tokens", "quality", "token", "", "Mean tokens of a sampled answer.", OWN),
    Metric("completion_tokens_before", "quality", "token", "", "The same before the stage.", OWN),
    Metric("bits_per_byte", "quality", "bit/B", "lower", "Code length of held-out text under the model.", OWN),
    Metric("bits_per_byte_before", "quality", "bit/B", "lower", "The same before the stage.", OWN),
    Metric(
        "forgetting_bits_per_byte",
        "quality",
        "bit/B",
        "lower",
        "bits_per_byte of held-out text less that before.",
        "arXiv:2308.08747",
    ),
    Metric(
        "task_score", "quality", "", "higher", "A task's metric, where higher is better, on held-out examples.", OWN
    ),
    Metric("task_score_before", "quality", "", "higher", "The same before the stage.", OWN),
    Metric("task_loss", "quality", "", "lower", "A task's metric, where lower is better, on held-out examples.", OWN),
    Metric("task_loss_before", "quality", "", "lower", "The same before the stage.", OWN),
    Metric("perplexity", "quality", "", "lower", "exp(loss per token) on held-out text.", SURVEY),
    Metric(
        "label_loyalty",
        "quality",
        "",
        "higher",
        "Share of positions with the original's top token.",
        "arXiv:2109.03228",
    ),
    Metric("probability_loyalty", "quality", "", "higher", "1 - Jensen-Shannon distance (base 2).", "arXiv:2109.03228"),
    Metric(
        "fidelity_kl_nats", "quality", "nat", "lower", "KL(original || compressed) per position.", "arXiv:2106.05945"
    ),
    Metric("robustness_bits_per_byte", "quality", "bit/B", "lower", "bits_per_byte of text with typing errors.", OWN),
    Metric("greedy_agreement", "quality", "", "higher", "Share of greedy tokens equal to the reference engine's.", OWN),
)

VOCABULARY: dict[str, Metric] = {metric.name: metric for metric in _METRICS}
"""Name -> metric."""


def lookup(name: str) -> Metric:
    """The metric of a ledger entry; a qualifier after a slash says of what, e.g. `model_bytes/Q4_0`.

    Raises:
        KeyError: the metric isn't in the vocabulary.
    """
    return VOCABULARY[name.partition("/")[0]]
