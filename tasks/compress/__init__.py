"""Stage compress: fine-tuned model in, smaller model out, evaluated before and after.

A technique is `apply(self, bench: Workbench) -> str`, from folder to folder: it reads the original at `bench.source`,
writes a complete model folder (safetensors that `AutoModelForCausalLM.from_pretrained` reads, tokenizer) to
`bench.out`, and returns one sentence for the ledger: what was made small, and what was not. Nothing else is asked of
it, so one that calibrates or trains (`bench.data`, `bench.seed`; checkpoints under `bench.job.work`), runs a tool of
its own in a child process or changes the architecture fits as well as one that quantizes in place. The stage loads
`bench.out` again and measures what is on disk, never what a technique held in memory.
"""

from __future__ import annotations

from tasks.compress.int8 import Int8
from tasks.compress.magnitude import Magnitude
from tasks.compress.nf4 import Nf4
from tasks.compress.none import Uncompressed
from tasks.core.schema import Choice


class Compress(Choice):
    """How the model is made smaller."""

    method: str = "int8"
    """Technique to use."""
    none: Uncompressed = Uncompressed()
    int8: Int8 = Int8()
    nf4: Nf4 = Nf4()
    magnitude: Magnitude = Magnitude()
