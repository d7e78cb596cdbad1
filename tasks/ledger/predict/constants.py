"""Every constant of the predictions that is no exact arithmetic, with how it was got.

Got from the stages' own reports, of the presets smoke, default and smollm2, and from single steps of models of 0.1 to
135 M parameters, on two cores of an x86-64 server with AMX in November 2026; text: the standard library's source.
Rates that a machine's own measurement can scale are kept as shares of it. Not tried on a graphics card.
"""

from __future__ import annotations

GEMM_EFFICIENCY = {"float32": 0.9, "bfloat16": 0.5}
"""Share of the best matrix-product rate that a model's layers reach."""

BYTES_PER_ELEMENT = 15.0
"""Memory traffic of one element of an intermediate result, from eager forward passes: written, read again, page faults."""

TRAINING_TRAFFIC = 4.0
"""Traffic of forward and backward pass as a multiple of the forward pass's."""

ELEMENTS_PER_WIDTH, ELEMENTS_PER_INNER, ELEMENTS_PER_VOCAB = 16, 4, 3
"""Intermediate elements of one token: per layer and unit of width, per layer and unit of inner width, per logit."""

LORA_ELEMENTS_IN, LORA_ELEMENTS_OUT = 2, 3
"""Intermediate elements an adapted layer adds for a token, per input and per output."""

OPTIMIZER_ELEMENTS = 20
"""Elements moved per trained parameter and step: clipping, AdamW, cast to the arithmetic of the forward pass."""

SAVED_PER_WIDTH, SAVED_PER_INNER, SAVED_PER_VOCAB = 16, 6, 4
"""Elements one token keeps until the backward pass: per unit of width, of inner width, per logit (float32)."""

LAYER_SECONDS = 0.5e-3
"""Calling one layer from Python in a forward pass, whatever its size."""

DECODE_EFFICIENCY = {"float32": 1.0, "bfloat16": 0.4}
"""Share of the memory bandwidth at which transformers reads weights while one token is generated."""

LLAMA_CPP_EFFICIENCY = 0.29
"""The same of llama.cpp, on the host's memory (two cores: bound by arithmetic, the same for Q8_0 and Q4_1)."""

LLAMA_CPP_TOKEN_SECONDS = 0.1e-3
"""What llama.cpp takes for a token of the smallest model."""

QUANTIZED_LAYER_SECONDS = {"int8": 1.5e-3, "nf4": 0.6e-3}
"""`LAYER_SECONDS` of a layer in bitsandbytes' hands."""

QUANTIZED_SLOWDOWN = {"int8": 3.0, "nf4": 3.0}
"""Forward pass and decoding through bitsandbytes' layers on a CPU, as a multiple of plain weights'."""

STARTUP_SECONDS = {
    "data": 1.5,
    "design": 0.05,
    "pretrain": 4.5,
    "finetune": 6.0,
    "compress": 5.5,
    "deploy_profile": 4.5,
}
"""Until a stage's first useful work: imports, from the second time on (cold, twice that)."""

BASE_MEMORY_BYTES = {
    "data": 320 << 20,
    "design": 85 << 20,
    "pretrain": 550 << 20,
    "finetune": 740 << 20,
    "compress": 620 << 20,
    "deploy_profile": 550 << 20,
}
"""Resident set after those imports."""

SHAPE_BYTES = 28 << 20
"""What the bfloat16 kernels of a CPU keep for every length of batch they have met."""

STEP_SECONDS = 10e-3
"""An optimizer step of the smallest model, beside its layers: batch, clipping, optimizer, history."""

ENGINE_SECONDS = {"transformers": 6.5, "llama_cpp": 0.5}
"""Start of an engine's process, imports included."""

TEXT_COPIES = 6.0
"""Memory of the data stage per byte of its text."""

TOKENIZED_BYTES = 200.0
"""Memory of a token while a batch of documents is tokenized: ids, offsets, masks, and Python's lists of them."""

BPE_BYTES_PER_SECOND = 3.2e6
"""Text a byte-level BPE tokenizer is trained on per second."""

ENCODE_BYTES_PER_SECOND = 2.5e6
"""Text that is read, tokenized and written per second and core."""

CHATS_PER_SECOND = 520.0
"""Chat examples made from Python source per second."""

BYTES_PER_TOKEN = ((256, 1.0), (300, 1.52), (512, 2.13), (1024, 2.64), (4096, 3.39), (16384, 3.83), (49152, 4.1))
"""Vocabulary -> held-out bytes per token; between two rows, linear in the logarithm of the vocabulary."""

PRETRAINED_BYTES_PER_TOKEN = (3.75, 3.2)
"""The same of a general tokenizer (SmolLM2's, 49,152 tokens) on the standard library's source, and on chats from it."""

ACQUIRE_SECONDS = {"stdlib": 3.0, "package": 12.0}
"""Making a raw input that needs no network."""

BYTES_PER_CHAT = 1500.0
"""Python source that yields one chat example."""

XZ_BYTES_PER_SECOND = 1.5e6
"""Held-out text that gzip and xz compress per second."""

LABELLED_SHARE = 0.1
"""Share of a padded batch of chats that is an answer's token."""

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

LOYALTY_ELEMENTS, LOYALTY_COPIES, LOYALTY_BYTES = 30, 15, 1 << 26
"""Comparing two predictions: elements moved per logit; copies of a batch of logits, and a batch's largest size."""

TOKENIZER_BYTES = 75
"""Bytes of a tokenizer's files per token of its vocabulary."""

ENGINE_MEMORY_BYTES = 600 << 20
"""Resident set of an engine's process under transformers before the weights."""
