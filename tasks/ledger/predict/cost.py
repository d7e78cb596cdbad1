"""How work becomes time, memory and energy on a machine: the one place where rates are divided by."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.accounting import Anatomy, Block
from tasks.core.measure import Metrics, modelled
from tasks.ledger.machine import Machine
from tasks.ledger.predict import constants


@dataclass(frozen=True)
class Cost:
    """Work done one after the other.

    Attributes:
        serial: seconds of one core, other cores idle.
        cores: seconds in which every core is busy.
        device: seconds in which the device of the models is busy: every core, or the graphics card.
    """

    serial: float = 0.0
    cores: float = 0.0
    device: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """One after the other."""
        return Cost(self.serial + other.serial, self.cores + other.cores, self.device + other.device)

    def __mul__(self, times: float) -> Cost:
        """Again and again."""
        return Cost(self.serial * times, self.cores * times, self.device * times)

    @property
    def wall(self) -> float:
        """Seconds on the clock."""
        return self.serial + self.cores + self.device

    def metrics(self, stage: str, machine: Machine, peak_memory: float, what: str) -> Metrics:
        """Time, energy of a graphics card, and memory as the ledger writes them.

        Args:
            stage: whose start-up time is added.
            machine: where it runs.
            peak_memory: bytes above the stage's base.
            what: the formula of the work, for the note.
        """
        total = self + Cost(serial=constants.STARTUP_SECONDS[stage])
        busy = total.cores * machine.cores + total.device * (machine.cores if machine.device == "cpu" else 1)
        base = constants.BASE_MEMORY_BYTES[stage]
        start = f"{constants.STARTUP_SECONDS[stage]:g} s start-up + {what}"
        metrics: Metrics = {
            "wall_seconds": modelled(total.wall, start),
            "cpu_seconds": modelled(
                total.serial + busy, f"{total.serial:.3g} s on one core, {busy:.3g} s of {machine.cores} cores"
            ),
            "peak_memory_bytes": modelled(
                int(base + peak_memory), f"{base >> 20} MiB of libraries + {peak_memory / (1 << 20):.0f} MiB of data"
            ),
        }
        if machine.device_watts:
            note = f"{total.device:.3g} s x {machine.device_watts:g} W power limit"
            metrics["energy_joules/gpu"] = modelled(total.device * machine.device_watts, note)
        return metrics


def compute(machine: Machine, dtype: str, flops: float, elements: float, calls: float = 0.0) -> Cost:
    """Matrix products at the machine's rate, then everything between them at its memory bandwidth.

    Args:
        machine: measured rates.
        dtype: "float32" or "bfloat16".
        flops: of the matrix products.
        elements: intermediate elements written and read.
        calls: layers called from Python.
    """
    rate = machine.gemm_flops_per_second[dtype] * constants.GEMM_EFFICIENCY[dtype]
    traffic = elements * constants.BYTES_PER_ELEMENT / machine.bandwidth_bytes_per_second
    return Cost(serial=calls * constants.LAYER_SECONDS, device=flops / rate + traffic)


def forward_elements(anatomy: Anatomy, logits: float = 1.0) -> float:
    """Intermediate elements of one token's forward pass, with logits for a share of the tokens."""
    inner = sum(inner_width(block) for block in anatomy.blocks)
    inside = constants.ELEMENTS_PER_WIDTH * anatomy.width * anatomy.layers + constants.ELEMENTS_PER_INNER * inner
    return inside + constants.ELEMENTS_PER_VOCAB * anatomy.vocab * logits


def inner_width(block: Block) -> int:
    """Width of what the block's last matrices read."""
    last = max(matrix.order for matrix in block.matrices)
    return sum(matrix.inputs * matrix.active for matrix in block.matrices if matrix.order == last)


def disk(machine: Machine, size: float) -> Cost:
    """Write (or read and write back) that many bytes."""
    return Cost(serial=size / machine.disk_bytes_per_second)
