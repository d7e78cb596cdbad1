"""`reports/<stage>.json`: the ledger on disk. Written once by the runner; priced anew whenever it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.files import write_whole
from tasks.core.measure import Metrics, Value, missing, modelled
from tasks.ledger import Prices
from tasks.ledger.vocabulary import lookup

FOLDER = Path("reports")


def path(stage: str) -> Path:
    """Where the report of `stage` lies."""
    return FOLDER / f"{stage}.json"


def to_json(metrics: Metrics) -> dict[str, dict[str, Any]]:
    """Metrics as the report writes them, unit from the vocabulary.

    Raises:
        KeyError: a name that isn't in the vocabulary.
    """
    return {
        name: {"value": v.value, "unit": lookup(name).unit, "method": v.method}
        | ({"note": v.note} if v.note else {})
        | ({} if v.low is None else {"low": v.low, "high": v.high})
        for name, v in metrics.items()
    }


def from_json(entries: dict[str, dict[str, Any]]) -> Metrics:
    """The inverse of `to_json`."""
    return {
        name: Value(e["value"], e["method"], e.get("note", ""), e.get("low"), e.get("high"))
        for name, e in entries.items()
    }


def write(stage: str, report: dict[str, Any]) -> None:
    """Write a report atomically: a reader sees the old one or the new one, never half of one."""
    target = path(stage)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def read(stage: str, prices: Prices | None = None, project: Path = Path()) -> dict[str, Any] | None:
    """The report of `stage` in a `project`'s folder, or None if there is none; `metrics` and `predicted` are `Metrics`.

    With `prices`, whatever is assumed (energy without a meter, money, carbon) is computed again at these prices.

    Raises:
        UserError: the file isn't a report.
    """
    try:
        report = json.loads((project / path(stage)).read_text(encoding="utf-8"))
        metrics, predicted = from_json(report["metrics"]), from_json(report["predicted"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path(stage)}: damaged ({error!r})", f"`dvc repro -f {stage}` measures it again") from None
    if prices is not None:
        metrics, predicted = priced(metrics, prices), priced(predicted, prices)
    return {**report, "metrics": metrics, "predicted": predicted}


def priced(metrics: Metrics, prices: Prices) -> Metrics:
    """`metrics` with energy (the part without a meter), carbon and money derived from time and `prices`."""
    result = {**metrics, **_priced_tokens(metrics, prices)}
    energy, wall = _energy(metrics, prices), metrics.get("wall_seconds")
    if energy is None:
        return result
    result["energy_joules"] = energy
    if energy.value is None:
        return result | {name: missing(f"energy: {energy.note}") for name in ("carbon_kg_co2e", "dollars")}
    carbon = energy.value / 3.6e6 * prices.kg_co2e_per_kwh
    result["carbon_kg_co2e"] = modelled(carbon, f"kWh x {prices.kg_co2e_per_kwh:g} kg/kWh")
    if wall is not None and wall.value is not None:
        result["dollars"] = _dollars(wall.value, energy.value, prices)
    return result


def _dollars(seconds: float, joules: float, prices: Prices) -> Value:
    return modelled(
        seconds / 3600 * prices.dollars_per_hour + joules / 3.6e6 * prices.dollars_per_kwh,
        f"hours x {prices.dollars_per_hour:g} $/h + kWh x {prices.dollars_per_kwh:g} $/kWh",
    )


def _priced_tokens(metrics: Metrics, prices: Prices) -> Metrics:
    """Energy and money of generated tokens, engine by engine."""
    result: Metrics = {}
    for name, cpu in metrics.items():
        metric, _, engine = name.partition("/")
        if metric != "cpu_seconds_per_token" or cpu.value is None:
            continue
        joules = cpu.value * prices.watts_per_core
        note = f"cpu_seconds_per_token x {prices.watts_per_core:g} W per core (no energy meter readable)"
        result[f"energy_per_token_joules/{engine}"] = modelled(joules, note)
        rate = metrics.get(f"decode_tokens_per_second/{engine}")
        if rate is not None and rate.value:
            million = _dollars(1e6 / rate.value, 1e6 * joules, prices)
            result[f"dollars_per_million_tokens/{engine}"] = million
    return result


def _energy(metrics: Metrics, prices: Prices) -> Value | None:
    """Metered energy as it is; else the sum of the processor's (metered or modelled) and the cards', if there are any.

    A card that could not be read leaves the total unknown: nothing else tells what it drew.
    """
    whole, gpu = metrics.get("energy_joules"), metrics.get("energy_joules/gpu")
    if whole is not None and whole.value is not None and whole.method != "modelled":
        return whole
    cpu, seconds = metrics.get("energy_joules/cpu"), metrics.get("cpu_seconds")
    if cpu is None or cpu.value is None:
        if seconds is None or seconds.value is None:
            return whole
        reason = cpu.note if cpu is not None and cpu.note else "no energy meter readable"
        note = f"cpu_seconds x {prices.watts_per_core:g} W per core ({reason})"
        cpu = modelled(seconds.value * prices.watts_per_core, note)
    if gpu is None:
        return cpu
    if cpu.value is None or gpu.value is None:
        return missing(gpu.note)
    return modelled(cpu.value + gpu.value, f"{cpu.note}, plus {gpu.value:g} J {gpu.method} ({gpu.note})")
