"""Public accelerators: what they can do and what an hour costs, for predictions of machines that aren't at hand.

The figures stand in `hardware/accelerators.yaml`, each accelerator with its sources and their dates.
"""

from __future__ import annotations

import datetime
import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from tasks.core.errors import UserError
from tasks.core.files import read_yaml
from tasks.core.schema import Section, validate
from tasks.ledger.machine import Machine, measure

TABLE = Path(__file__).parents[2] / "hardware" / "accelerators.yaml"
"""The table, beside the measured machines of this project."""

Dtype = Literal["float32", "tf32", "bfloat16", "float16", "float8", "int8"]
Address = Annotated[str, Field(pattern=r"^https://\S+$")]
Words = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class Link(Section):
    """The way to the next accelerator of its kind."""

    name: Words
    """What it is: NVLink, PCIe, Ethernet."""

    bytes_per_second: PositiveFloat
    """In one direction, which is what a ring all-reduce sends."""


class Price(Section):
    """What an hour costs, or why there is no price."""

    dollars_per_hour: PositiveFloat | None = None
    terms: str = ""
    """Who rents it out, and how."""

    source: Address | None = None
    date: datetime.date | None = None
    """When `source` was read, or the day it says it was written."""

    reason: str = ""
    """Why there is no price."""

    @model_validator(mode="after")
    def _accounted_for(self) -> Self:
        if self.dollars_per_hour is None and not self.reason:
            raise ValueError("without dollars_per_hour it takes a reason")
        if self.dollars_per_hour is not None and not (self.source and self.date and self.terms):
            raise ValueError("dollars_per_hour takes terms, source and date")
        return self


class Reach(Section):
    """How much of the printed figures programs get, as shares; assumed unless `source` says where it was measured."""

    gemm: Share
    bandwidth: Share
    source: Words


class Accelerator(Section):
    """One accelerator as its vendor describes it; dense peaks, no 2:4 sparsity."""

    name: Words
    kind: Literal["gpu", "cpu"]
    cores: PositiveInt | None = None
    """Of a processor; None for what sits beside one."""

    flops_per_second: dict[Dtype, PositiveFloat]
    """Peak of matrix products by dtype; float32 is without tf32, as torch multiplies by default."""

    bandwidth_bytes_per_second: PositiveFloat
    memory_bytes: PositiveInt
    """The vendor's GB as 10^9 bytes: the least it can be."""

    watts: PositiveFloat
    """Board or package power (TDP)."""

    link: Link
    source: Address
    """The vendor's data sheet."""

    checked: Address
    """The page that was read to check the figures."""

    date: datetime.date
    """When `checked` was read."""

    verified: bool
    """Whether every figure stands on `checked`, or on the pages that `note` names."""

    note: str = ""
    price: Price
    reach: Reach

    @model_validator(mode="after")
    def _complete(self) -> Self:
        lacking = {"float32", "bfloat16"} - set(self.flops_per_second)
        if lacking:
            raise ValueError(f"flops_per_second lacks {', '.join(sorted(lacking))}")
        if self.kind == "cpu" and self.cores is None:
            raise ValueError("a processor takes cores")
        if not self.verified and not self.note:
            raise ValueError("verified: false takes a note that says what is not")
        return self

    @property
    def assumption(self) -> str:
        """The sentence that a prediction for it must carry."""
        price = f"{self.price.terms}, {self.price.date}" if self.price.date else f"no price: {self.price.reason}"
        return (
            f"{self.name} as printed ({self.source}{'' if self.verified else ', not all of it verified'}), of which "
            f"{self.reach.gemm:.0%} of the FLOP/s and {self.reach.bandwidth:.0%} of the bandwidth are assumed to be "
            f"reached; {price}"
        )


@cache
def accelerators(path: Path = TABLE) -> dict[str, Accelerator]:
    """Short name -> accelerator, in the table's order.

    Raises:
        UserError: the table is missing or damaged; names the entry and the figure.
    """
    return {name: validate(Accelerator, entry, f"{path.name}: {name}") for name, entry in read_yaml(path).items()}


def find(name: str, path: Path = TABLE) -> Accelerator:
    """The accelerator of that name: short (`h100`) or full, case and punctuation aside.

    Raises:
        UserError: there is none; names the nearest, and all there are.
    """
    known = accelerators(path)
    for short, entry in known.items():
        if _plain(name) in (_plain(short), _plain(entry.name)):
            return entry
    near = get_close_matches(_plain(name), known, n=1) or [each for each in known if _plain(name) in each][:1]
    hint = f"did you mean {near[0]}? " if near and _plain(name) else ""
    raise UserError(f"{name}: unknown accelerator", f"{hint}there are: {', '.join(known)}")


def machine_of(name: str, host: Machine | None = None, path: Path = TABLE) -> Machine:
    """A machine with that accelerator, for predictions: what is printed about it, times what is assumed to be reached.

    Work that stays on the processor, and the disk, are taken to be as fast as here.

    Args:
        name: of the accelerator, as `find` takes it.
        host: rates of the processor beside it; None: this machine's, measured now unless they are known.
        path: the table.

    Raises:
        UserError: unknown accelerator, or a damaged table.
    """
    entry = find(name, path)
    host = host if host is not None else measure()
    gpu = entry.kind == "gpu"
    bandwidth = entry.bandwidth_bytes_per_second * entry.reach.bandwidth
    beside = f"; processor work and disk as on {host.name or 'this machine'}" if gpu else "; disk as on this machine"
    return Machine(
        gemm_flops_per_second={dtype: peak * entry.reach.gemm for dtype, peak in entry.flops_per_second.items()},
        bandwidth_bytes_per_second=bandwidth,
        host_bandwidth_bytes_per_second=host.host_bandwidth_bytes_per_second if gpu else bandwidth,
        disk_bytes_per_second=host.disk_bytes_per_second,
        native_bf16=entry.flops_per_second["bfloat16"] > entry.flops_per_second["float32"] or gpu,
        cores=entry.cores or host.cores,
        device="cuda" if gpu else "cpu",
        device_watts=entry.watts if gpu else 0.0,
        name=entry.name,
        memory_bytes=entry.memory_bytes,
        watts=entry.watts,
        dollars_per_hour=entry.price.dollars_per_hour,
        link_bytes_per_second=entry.link.bytes_per_second,
        assumed=entry.assumption + beside,
    )


def _plain(name: str) -> str:
    """Lower case, runs of anything but letters and digits as one hyphen."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
