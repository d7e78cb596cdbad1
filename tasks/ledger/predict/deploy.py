"""What the stage deploy_profile will cost, how large its files will be, and how fast engines will generate."""

from __future__ import annotations

from tasks import accounting
from tasks.accounting.lora import linear_layers
from tasks.core.measure import Metrics, missing, modelled
from tasks.ledger.predict import constants
from tasks.ledger.predict.compress import compressed
from tasks.ledger.predict.cost import Cost, disk, work
from tasks.ledger.predict.quality import Kept, decode_seconds, generation, running, samples
from tasks.ledger.predict.subject import Subject

BLOCK = {"Q8_0": (32, 34), "Q4_0": (32, 18)}
"""GGUF type -> weights in a block, bytes of a block."""


def matrix_bytes(rows: int, columns: int, kind: str) -> int:
    """Bytes of a matrix in a GGUF file; rows that don't divide into blocks stay F16."""
    weights, size = BLOCK.get(kind, (1, 2))
    return rows * (columns // weights * size if columns % weights == 0 else 2 * columns)


def gguf_tensor_bytes(about: Subject, kind: str) -> int:
    """Bytes of the tensors: vectors in float32, the matrix that makes the logits in at least 8 bits."""
    anatomy = about.anatomy
    inside = sum(matrix_bytes(layer.outputs, layer.inputs, kind) for layer in linear_layers(about.config)[:-1])
    logits = matrix_bytes(anatomy.vocab, anatomy.width, "Q8_0" if kind == "Q4_0" else kind)
    embedding = 0 if anatomy.tied else matrix_bytes(anatomy.vocab, anatomy.width, kind)
    return inside + logits + embedding + 4 * (2 * anatomy.layers + 1) * anatomy.width


def gguf_bytes(about: Subject, kind: str) -> int:
    """Bytes of the file: tensors, and a header with the vocabulary."""
    return gguf_tensor_bytes(about, kind) + constants.GGUF_BYTES_PER_TOKEN * about.vocab


def token_seconds(about: Subject, engine: str) -> float:
    """Seconds of one generated token."""
    if engine == "transformers":
        return decode_seconds(about, compressed(about))
    served = about.params.deploy_profile.serve
    read = gguf_tensor_bytes(about, served)
    if not about.anatomy.tied:
        read -= matrix_bytes(about.anatomy.vocab, about.anatomy.width, served)
    bandwidth = about.machine.host_bandwidth_bytes_per_second * constants.LLAMA_CPP_EFFICIENCY
    return read / bandwidth + constants.LLAMA_CPP_TOKEN_SECONDS


def deploy_profile(about: Subject) -> Metrics:
    """Export, then generate under every engine in a process of its own."""
    params, model = about.params.deploy_profile, compressed(about)
    size = accounting.parameters(about.config)
    sizes: dict[str, int] = {kind: gguf_bytes(about, kind) for kind in params.gguf}
    engines_known = [engine for engine in params.engines if engine == "transformers" or about.model_type == "llama"]
    export = Cost(serial=sum(size / constants.QUANTIZE_WEIGHTS_PER_SECOND[kind] for kind in params.gguf))
    export += disk(about.machine, sum(sizes.values()) + 2 * model.bytes)
    engines = Cost()
    for engine in engines_known:
        engines += _profiled(about, engine, model)
    middle = params.prompt_tokens + params.max_new_tokens // 2
    generations = (1 + params.warmup + params.repeats) * len(params.engines)
    decoding = accounting.decode_flops_per_token(about.config, middle)
    prefill = params.prompt_tokens * accounting.forward_flops_per_token(about.config, params.prompt_tokens)
    flops = generations * (prefill + params.max_new_tokens * decoding)
    note = f"{export.wall:.3g} s export + {engines.wall:.3g} s engines + samples"
    exporting = 4 * size if model.slowdown > 1 else 4 * about.anatomy.vocab * about.anatomy.width * 3
    engine_memory = constants.ENGINE_MEMORY_BYTES + model.bytes - constants.BASE_MEMORY_BYTES["deploy_profile"]
    memory = model.bytes + max(exporting, engine_memory - model.bytes, 0)
    per_engine = "bytes read per token / (bandwidth x engine's share) + time per layer or token"
    return {
        **(export + engines + samples(about, running(about, model))).metrics(
            "deploy_profile", about.machine, memory, note
        ),
        "flops": modelled(flops, f"{generations} generations: prompts and tokens"),
        "kv_cache_bytes_per_token": modelled(accounting.kv_cache_bytes_per_token(about.config), "exact, in float16"),
        "decode_flops_per_token": modelled(decoding, f"exact, with {middle} tokens in the cache"),
        "model_bytes/safetensors": modelled(model.bytes, "as compress keeps it"),
        **_delivered(about, sizes, model),
        **{
            f"decode_tokens_per_second/{engine}": modelled(1 / token_seconds(about, engine), per_engine)
            for engine in engines_known
        },
        **{
            f"cpu_seconds_per_token/{engine}": modelled(token_seconds(about, engine) * about.machine.cores, "all cores")
            for engine in engines_known
            if about.machine.device == "cpu"
        },
    }


def _delivered(about: Subject, sizes: dict[str, int], model: Kept) -> Metrics:
    """Bytes of the files; only Llama-like models are written as GGUF."""
    if about.model_type != "llama":
        sizes = {}
    files = {f"model_bytes/{kind}": modelled(size, "layers' shapes and a header") for kind, size in sizes.items()}
    serve: str = about.params.deploy_profile.serve
    if serve == "safetensors":
        return files | {"delivery_bytes": modelled(model.bytes, "the safetensors file")}
    unknown = missing(f"a {about.model_type} model is not written as GGUF")
    delivered = modelled(sizes[serve], f"the {serve} GGUF") if serve in sizes else unknown
    return files | {"delivery_bytes": delivered}


def _profiled(about: Subject, engine: str, model: Kept) -> Cost:
    """One engine's process: start, one generation to keep, warm-up, repeats."""
    params = about.params.deploy_profile
    count = 1 + params.warmup + params.repeats
    start = Cost(serial=constants.ENGINE_SECONDS[engine])
    if engine == "transformers":
        return start + generation(about, model, params.prompt_tokens, params.max_new_tokens) * count
    rate = constants.FORWARD["float32"]
    prefill = work(about.machine, rate, "float32", about.anatomy, 1, params.prompt_tokens)
    return start + (prefill + Cost(device=token_seconds(about, engine) * params.max_new_tokens)) * count
