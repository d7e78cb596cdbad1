"""How work becomes time, memory and energy on a machine: the one place where rates are divided by."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.accounting import Anatomy
from tasks.accounting.delta import CHUNK, DeltaRule
from tasks.accounting.mamba import Scan
from tasks.accounting.recurrent import chunks_of
from tasks.accounting.rwkv import TimeMixing
from tasks.core.measure import Metrics, modelled
from tasks.ledger.machine import Machine
from tasks.ledger.predict import constants
from tasks.ledger.predict.constants import Pass


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
        watts = machine.device_watts or (machine.watts if machine.device != "cpu" else 0.0)
        if watts:
            note = f"{total.device:.3g} s x {watts:g} W power limit"
            metrics["energy_joules/gpu"] = modelled(total.device * watts, note)
        return metrics


def work(
    machine: Machine, rate: Pass, dtype: str, anatomy: Anatomy, sequences: float, context: int, logits: float = 1.0
) -> Cost:
    """A pass over `sequences` of `context` tokens.

    Args:
        machine: measured rates.
        rate: what a pass of this kind reaches.
        dtype: of the matrix products, "float32" or "bfloat16".
        anatomy: the model.
        sequences: how many.
        context: tokens of each.
        logits: share of the tokens that have logits.
    """
    backward = constants.BACKWARD if rate in constants.TRAINING.values() else 1.0
    tokens, peak = sequences * context, machine.gemm_flops_per_second[dtype]
    flops = sum(block.matrix_flops for block in anatomy.blocks) + anatomy.head_matrix.flops * logits
    outputs = sum(matrix.outputs * matrix.active for block in anatomy.blocks for matrix in block.matrices)
    traffic = rate.stream * anatomy.width * anatomy.layers + rate.output * outputs + rate.logit * anatomy.vocab * logits
    products = Cost(device=backward * tokens * flops / (peak * rate.gemm))
    moved = Cost(device=tokens * traffic / machine.bandwidth_bytes_per_second)
    called = Cost(device=rate.layer_seconds * anatomy.layers)
    between = _between(machine, rate.attention * peak, anatomy, sequences, context) * backward
    looped = sum(isinstance(part, TimeMixing) for block in anatomy.blocks for part in block.mixings) * context
    seconds = constants.POSITION_SECONDS + (constants.POSITION_BACKWARD_SECONDS if backward > 1 else 0.0)
    return products + moved + called + between + Cost(serial=looped * seconds)


def _between(machine: Machine, rate: float, anatomy: Anatomy, sequences: float, context: int) -> Cost:
    """What happens between tokens, and experts: products where a kernel does them, else traffic and calls."""
    total = Cost()
    for block in anatomy.blocks:
        for part in block.mixings:
            flops = sequences * part.forward_flops(context)
            moved = flops / machine.bandwidth_bytes_per_second
            if isinstance(part, Scan):
                total += Cost(device=moved * constants.SCAN_BYTES)
            elif isinstance(part, DeltaRule):
                called = constants.CHUNK_SECONDS * chunks_of(context, CHUNK)
                total += Cost(serial=called, device=moved * constants.DELTA_BYTES)
            else:
                total += Cost(device=flops / rate)
        total += Cost(device=constants.EXPERTS_SECONDS * any(matrix.copies > 1 for matrix in block.matrices))
    return total


def traffic(machine: Machine, size: float) -> Cost:
    """Move that many bytes through the memory of the models' device."""
    return Cost(device=size / machine.bandwidth_bytes_per_second)


def disk(machine: Machine, size: float) -> Cost:
    """Write (or read and write back) that many bytes."""
    return Cost(serial=size / machine.disk_bytes_per_second)
