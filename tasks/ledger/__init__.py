"""The ledger: what every stage cost and gained, by one ruler. Its parameters: the budget and the prices."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from tasks.core.schema import Section


class Budget(Section):
    """Hard limits of one lifecycle, all stages together (memory: of any one); null: no limit. Changing them reruns nothing."""

    seconds: PositiveFloat | None = None
    """Wall-clock seconds."""
    joules: PositiveFloat | None = None
    """Electrical energy."""
    dollars: PositiveFloat | None = None
    """Money, at `prices`."""
    flops: PositiveFloat | None = None
    """Floating-point operations."""
    memory_bytes: PositiveInt | None = None
    """Peak memory of any stage."""


class Prices(Section):
    """What is assumed where nothing can be measured. Applied whenever the ledger is read: changing them reruns nothing."""

    watts_per_core: PositiveFloat = 8.0
    """Power of a busy CPU core where no meter can be read (a 350 W server CPU of 44 cores, its data sheet, 2023)."""
    dollars_per_hour: float = Field(default=0.09, ge=0)
    """Rent of the machine (two virtual cores of a public cloud, on demand, list price 2025)."""
    dollars_per_kwh: float = Field(default=0.13, ge=0)
    """Electricity (average US commercial price 2024, EIA)."""
    kg_co2e_per_kwh: float = Field(default=0.473, ge=0)
    """Carbon intensity of the grid (world average 2024, Ember Global Electricity Review 2025)."""
