"""Every constant of the predictions that is no exact arithmetic, with how it was got.

Got from the stages' own reports, of the presets smoke, default and smollm2, and from single steps of models of 0.1 to
135 M parameters, on two cores of an x86-64 server with AMX in November 2026, those of the data stage on two cores of an
AMD EPYC of the third generation; text: the standard library's source.
Rates that a machine's own measurement can scale are kept as shares of it. Not tried on a graphics card.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pass:
    """What a pass over a batch costs on a CPU, fitted to single steps of 20 shapes (64 to 512 wide, 2 to 12 layers).

    Attributes:
        gemm: share of the best matrix-product rate that a model's layers reach.
        attention: the same of its attention.
        stream: bytes of memory traffic per token, layer and unit of width: norms, residuals, copies.
        output: per token and output of a matrix: gates, activations, casts, rotations.
        logit: per token and logit.
        layer_seconds: calling one layer from Python, whatever its size.
    """

    gemm: float
    attention: float
    stream: float
    output: float
    logit: float
    layer_seconds: float


TRAINING = {
    "bfloat16": Pass(0.81, 0.45, 1080.0, 108.0, 296.0, 2.7e-3),
    "float32": Pass(0.82, 0.70, 229.0, 90.0, 262.0, 3.9e-3),
}
"""Forward and backward pass, by type of the matrix products; weights and the stream between layers are float32."""

AUTOCAST = Pass(0.40, 0.5, 139.0, 20.0, 119.0, 0.8e-3)
"""Forward pass alone of float32 weights under bfloat16 autocast: validation."""

FORWARD = {
    "float32": Pass(0.73, 0.76, 56.0, 26.0, 89.0, 0.44e-3),
    "bfloat16": Pass(0.5, 0.5, 56.0, 20.0, 89.0, 0.5e-3),
}
"""Forward pass alone of weights of that type."""

SCAN_BYTES, DELTA_BYTES = 25.0, 15.0
"""Traffic per FLOP of a scan's and of a delta rule's products, which transformers' plain torch writes out."""

CHUNK_SECONDS = 1.0e-3
"""Calling the operators of one chunk of a delta rule."""

POSITION_SECONDS, POSITION_BACKWARD_SECONDS = 60e-6, 1.0e-3
"""Calling the operators of one position of a recurrence that is a loop over positions (RWKV), forward and backward."""

EXPERTS_SECONDS = 8e-3
"""Sorting a batch's tokens by expert, the grouped products of every expert, and adding up, in one layer."""

BACKWARD = 3.0
"""Time of forward and backward pass as a multiple of the forward pass's, for what happens between tokens."""

LORA_ELEMENTS_IN, LORA_ELEMENTS_OUT = 2, 3
"""Intermediate elements an adapted layer adds for a token, per input and per output."""

ADAPTER_BYTES = 15.0
"""Traffic of one of those elements, and `BACKWARD` times that with the backward pass."""

OPTIMIZER_BYTES = 110.0
"""Traffic per trained parameter and step: clipping, AdamW, cast to the arithmetic of the forward pass."""

DECODE_EFFICIENCY = {"float32": 0.6, "bfloat16": 0.3}
"""Share of the memory bandwidth at which transformers reads weights while one token is generated."""

DECODE_LAYER_SECONDS, DECODE_TOKEN_SECONDS = 0.28e-3, 0.5e-3
"""Calling a layer for one token, and everything around the layers."""

LLAMA_CPP_EFFICIENCY = 0.29
"""The same of llama.cpp, on the host's memory (two cores: bound by arithmetic, the same for Q8_0 and Q4_1)."""

LLAMA_CPP_TOKEN_SECONDS = 0.1e-3
"""What llama.cpp takes for a token of the smallest model."""

QUANTIZED_LAYER_SECONDS = {"int8": 1.5e-3, "nf4": 0.6e-3}
"""`layer_seconds` of a layer in bitsandbytes' hands."""

QUANTIZED_SLOWDOWN = {"int8": 2.0, "nf4": 2.2}
"""Forward pass and decoding through bitsandbytes' layers on a CPU, as a multiple of plain weights'."""

STARTUP_SECONDS = {
    "data": 1.5,
    "design": 0.12,
    "pretrain": 4.5,
    "finetune": 6.0,
    "compress": 5.5,
    "deploy_profile": 4.5,
}
"""Until a stage's first useful work: imports, from the second time on (cold, twice that)."""

BASE_MEMORY_BYTES = {
    "data": 260 << 20,
    "design": 94 << 20,
    "pretrain": 550 << 20,
    "finetune": 630 << 20,
    "compress": 620 << 20,
    "deploy_profile": 550 << 20,
}
"""Resident set after those imports."""

LOGIT_BYTES = 12.0
"""Bytes per logit of a chunk: as computed, its probability, the slope in the arithmetic of the products."""

FRAGMENTED = {"none": 0.2, "selective": 0.05, "full": 0.4}
"""Bytes of a training step that the allocator holds and can't use, per byte of activations, by way of checkpointing."""

BETWEEN_PARTS = 0.4
"""The same, in addition, where gradients stay between the parts of a step: they lie amid what the next part needs."""

RETAINED = 0.85
"""Share of what a training step took that the process still holds when the evaluation begins."""

HARNESS_SECONDS, HARNESS_BYTES = 3.0, 100 << 20
"""Importing lm-eval and what it leans on, and the memory that takes."""

TASK_SECONDS, ROW_LAYER_SECONDS = 0.5, 0.2e-3
"""Making a task; what one more row costs a layer and token: its cache. From processor seconds on a busy machine: within 2x."""

PROGRAM_BYTES, PROGRAM_SECONDS = 200.0, 0.07
"""A question of the task code; running one program in the sandbox, once or until it is stopped."""

LOGIT_COPIES = 3.0
"""Copies of a batch's logits while it is scored, in float32."""

SHAPE_BYTES = 28 << 20
"""What the bfloat16 kernels of a CPU keep for every length of batch they have met."""

STEP_SECONDS = 10e-3
"""An optimizer step of the smallest model, beside its layers: batch, clipping, optimizer, history."""

ENGINE_SECONDS = {"transformers": 6.5, "llama_cpp": 0.5}
"""Start of an engine's process, imports included."""

ENTRY_BYTES = 1000
"""Memory of the data stage per document: path, hash, split, manifest; an estimate from the sizes of Python's objects."""

SIGNED_BYTES = 48
"""Memory of MinHash per permutation and document: the signature, and datasketch's tables of it; measured for 32 to 512 permutations."""

BUCKET_COPIES = 8
"""Copies of a bucket of texts while it is sorted and gone through; an estimate: bytes, lines, and strings of wider characters."""

BPE_COPIES = 28
"""Memory of training a byte-level BPE tokenizer per byte of its text, with what the heap keeps of it; from a run of the default."""

TOKENIZED_BYTES = 55.0
"""Memory of a token while a batch of documents is tokenized: ids, offsets, masks, and Python's lists of them."""

BPE_BYTES_PER_SECOND = 3.2e6
"""Text a byte-level BPE tokenizer is trained on per second."""

ENCODE_BYTES_PER_SECOND = 1.7e6
"""Text that is read, tokenized and written per second and core."""

SEARCHED_BYTES_PER_SECOND = 8.2e6
"""Text that is searched for the word sequences of the test text per second."""

IDS_PER_SECOND = 4.5e6
"""Token ids that go from the tokenizer's lists into a shard per second."""

CHATS_PER_SECOND = 245.0
"""Chat examples made from Python source, grouped and measured, per second."""

ROWS_PER_SECOND, SIZES_PER_SECOND = 1000.0, 2000.0
"""Rows of records read twice and grouped; conversations put into the chat template and tokenized."""

GROUPED_BYTES = 1500.0
"""Memory of a prompt that is compared with others: its signature, its key, its place in a group."""

TURN_TOKENS = 6
"""Tokens a chat template puts around a turn."""

DOCTESTS = 600
"""Questions in the docstrings of the standard library."""

BYTES_PER_TOKEN = ((256, 1.0), (300, 1.52), (512, 2.13), (1024, 2.64), (4096, 3.39), (16384, 3.83), (49152, 4.1))
"""Vocabulary -> held-out bytes per token; between two rows, linear in the logarithm of the vocabulary."""

PRETRAINED_BYTES_PER_TOKEN = (3.75, 3.2)
"""The same of a general tokenizer (SmolLM2's, 49,152 tokens) on the standard library's source, and on chats from it."""

ACQUIRE_SECONDS = {"stdlib": 3.0, "doctests": 1.0, "package": 12.0}
"""Making a raw input that needs no network."""

BYTES_PER_CHAT = 1500.0
"""Python source that yields one chat example."""

XZ_BYTES_PER_SECOND = 1.5e6
"""Held-out text that gzip and xz compress per second."""

LABELLED_SHARE = 0.1
"""Share of a padded batch of chats that is an answer's token."""

CHAT_BYTES = 300.0
"""Text of a chat in the mean."""

LONGEST_CHAT_BYTES, LONGER_PER_DOUBLING = 340.0, 67.0
"""Text of a batch's longest chat, to which it is padded: of a batch of one, and more for every doubling."""

QUANTIZE_WEIGHTS_PER_SECOND = {"F16": 150e6, "Q8_0": 40e6, "Q4_0": 40e6}
"""Weights converted to a GGUF type per second, in numpy."""

GGUF_BYTES_PER_TOKEN = 45
"""Header of a GGUF file per token of its vocabulary: text, type, merge."""

TENSOR_HEADER_BYTES = 130
"""Header of a safetensors file per tensor: name, type, shape, offsets."""

NF4_STATE_BYTES = 1500
"""What bitsandbytes stores beside a 4-bit layer: two code books and a description."""

LOYALTY_TRAFFIC, LOYALTY_COPIES, LOYALTY_BYTES = 450, 1.0, 1 << 28
"""Comparing two predictions: bytes moved per logit; copies the heap keeps of the logits, up to four batches of them."""

TOKENIZER_BYTES = 75
"""Bytes of a tokenizer's files per token of its vocabulary."""

ENGINE_MEMORY_BYTES = 600 << 20
"""Resident set of an engine's process under transformers before the weights."""
