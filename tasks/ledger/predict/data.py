"""What the stages data and design will cost."""

from __future__ import annotations

from math import inf
from pathlib import Path

from tasks.core.measure import Metrics, modelled
from tasks.data import NONE
from tasks.data.groups import MOST
from tasks.data.shards import BATCH, BATCH_BYTES
from tasks.data.spill import BUCKET
from tasks.design.run import costs
from tasks.ledger.predict import constants
from tasks.ledger.predict.cost import Cost, disk
from tasks.ledger.predict.rows import rows_in
from tasks.ledger.predict.subject import Subject
from tasks.ledger.predict.text import acquiring_seconds


def data(about: Subject) -> Metrics:
    """Read, tokenize and write the text; train the tokenizer; make chats."""
    params = about.params.data
    share = 1 - params.validation_fraction - params.test_fraction
    method = params.tokenizer.method
    learned = min(params.tokenizer.train.max_bytes, about.raw_bytes * share) if method == "train" else 0.0
    inputs = (params.source, params.instructions, about.params.pretrain.init)
    seconds_of_rows, memory_of_rows = _rows(about)
    seconds = {
        "raw inputs": acquiring_seconds(*map(Path, inputs)),
        "tokenizer": learned / constants.BPE_BYTES_PER_SECOND,
        "ids": about.raw_bytes / about.bytes_per_token / constants.IDS_PER_SECOND,
        "chats": seconds_of_rows,
        "contamination": about.raw_bytes / constants.SEARCHED_BYTES_PER_SECOND if params.contamination_ngram else 0.0,
        "compressors": about.params.evaluate.max_bytes / constants.XZ_BYTES_PER_SECOND,
    }
    encoding = Cost(cores=about.raw_bytes / constants.ENCODE_BYTES_PER_SECOND / about.machine.cores)
    shards = disk(about.machine, 2 * about.raw_bytes / about.bytes_per_token)
    cost = Cost(serial=sum(seconds.values())) + encoding + shards
    note = " + ".join(f"{value:.2g} s {name}" for name, value in {**seconds, "tokens": encoding.wall}.items())
    memory = _memory(about, learned) + memory_of_rows
    idle = params.deduplication.method != "minhash" and params.quality.method == params.importance.method == "none"
    unknown = "" if idle else "; before documents are dropped, how many is not known"
    return {
        **cost.metrics("data", about.machine, memory, note),
        "flops": modelled(0, "no matrix products"),
        "train_bytes": modelled(int(about.raw_bytes * share), f"source x training share{unknown}"),
        "train_tokens": modelled(
            int(about.train_tokens), f"train_bytes / {about.bytes_per_token:.3g} bytes per token{unknown}"
        ),
        "bytes_per_token": modelled(about.bytes_per_token, f"measured elsewhere, for {about.vocab} tokens"),
    }


def available_chats(about: Subject) -> float:
    """Rows for finetuning that the text or the records hold; how many unknown records hold is not known: no end of them."""
    params = about.params.data
    own, found = params.instructions != NONE, rows_in(about.params.data)
    if found is not None:
        return float(found)
    return inf if own else about.raw_bytes / constants.BYTES_PER_CHAT


def _rows(about: Subject) -> tuple[float, float]:
    """Seconds and bytes that making, grouping and measuring rows for finetuning takes."""
    params = about.params.data
    own, found = params.instructions != NONE, rows_in(about.params.data)
    made = min(params.max_instructions * 1.1, available_chats(about) * 1.1)  # held-out ones
    if found is None:
        return made / constants.CHATS_PER_SECOND, made * constants.GROUPED_BYTES
    entries = found * constants.ENTRY_BYTES if own else 0  # those of the source are counted there
    seconds = found / constants.ROWS_PER_SECOND + made / constants.SIZES_PER_SECOND
    return seconds, entries + min(found, MOST) * constants.GROUPED_BYTES


def _memory(about: Subject, learned: float) -> float:
    """Bytes beside the imports: an entry per document, one bucket of texts, one batch of tokens, the tokenizer's training."""
    params = about.params.data
    entry = constants.ENTRY_BYTES
    if params.deduplication.method == "minhash":
        entry += constants.SIGNED_BYTES * params.deduplication.minhash.num_perm
    one = about.raw_bytes / about.documents
    bucket = constants.BUCKET_COPIES * max(min(BUCKET, about.raw_bytes), one)
    batch = max(one, min(one * min(BATCH, about.documents), BATCH_BYTES)) / about.bytes_per_token
    return (
        about.documents * entry
        + max(bucket, constants.BPE_COPIES * learned)
        + bucket
        + batch * constants.TOKENIZED_BYTES
    )


def design(about: Subject) -> Metrics:
    """A few sums; the figures are the stage's own, and exact."""
    exact = "exact, from the config"
    return {
        **Cost().metrics("design", about.machine, 0, "a few sums"),
        "flops": modelled(0, "no matrix products"),
        **{
            name: modelled(value.value, f"{exact}; {value.note}" if value.note else exact)
            for name, value in costs(about.config).items()
            if value.value is not None
        },
    }
