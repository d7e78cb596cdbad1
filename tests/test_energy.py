"""Energy: read where a meter can be read, modelled with its formula where not, priced the same however often."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tasks.core.measure import Metrics, measured, missing, modelled
from tasks.ledger import Prices, energy
from tasks.ledger.meter import Meter
from tasks.ledger.report import from_json, priced, to_json

RANGE = 1_000_000
PRICES = Prices()


def domain(root: Path, folder: str, name: str, microjoules: int) -> Path:
    """A powercap domain as Linux shows it."""
    path = root / folder
    path.mkdir()
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    return path / "energy_uj"


def spend(seconds: float) -> None:
    """Keep one core busy."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_rapl_adds_packages_and_memory_across_a_wrap(tmp_path: Path) -> None:
    """Packages and DRAM add up over a wrap of the counter; parts of a package are not counted twice."""
    package = domain(tmp_path, "intel-rapl:0", "package-0", RANGE - 100_000)
    dram = domain(tmp_path, "intel-rapl:0:2", "dram", 0)
    core = domain(tmp_path, "intel-rapl:0:0", "core", 0)
    rapl = energy.Rapl(tmp_path)
    package.write_text("200000")
    dram.write_text("50000")
    core.write_text("900000")
    assert rapl.joules() == pytest.approx((100_000 + 200_000 + 50_000) / 1e6)
    package.write_text("100000")
    assert rapl.joules() == pytest.approx((350_000 + RANGE - 100_000) / 1e6)


def test_rapl_that_is_absent_or_unreadable_says_so(tmp_path: Path) -> None:
    """No counter, or one that doesn't answer, is None with a reason, never 0."""
    assert energy.Rapl(tmp_path).joules() is None
    assert "no RAPL" in energy.Rapl(tmp_path).reason
    (domain(tmp_path, "intel-rapl:0", "package-0", 5)).write_text("garbage")
    broken = energy.Rapl(tmp_path)
    assert broken.joules() is None
    assert "cannot be read" in broken.reason


def test_rapl_that_stops_answering_is_not_zero(tmp_path: Path) -> None:
    """A counter that vanishes while it is watched leaves the figure unknown."""
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 5)
    rapl = energy.Rapl(tmp_path)
    counter.unlink()
    assert rapl.joules() is None
    assert "stopped" in rapl.reason


def test_a_background_reading_catches_every_wrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two wraps between two readings of the stage are both counted."""
    monkeypatch.setattr(energy, "POLL_SECONDS", 0.01)
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 0)
    instruments = energy.Instruments(tmp_path)
    instruments.start()
    try:
        for value in ("600000", "200000", "800000", "400000"):
            temporary = counter.with_name("next")
            temporary.write_text(value)
            temporary.replace(counter)
            time.sleep(0.1)
    finally:
        instruments.stop()
    assert instruments.cpu.joules() == pytest.approx((2 * RANGE + 400_000) / 1e6)


def test_metered_energy_is_measured_and_stays_so_when_priced(tmp_path: Path) -> None:
    """RAPL's joules reach the ledger as measured; prices don't touch them."""
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 0)
    with Meter(rapl_root=tmp_path) as meter:
        counter.write_text("500000")
    metrics = priced(meter.metrics(), Prices(watts_per_core=1000))
    assert metrics["energy_joules"].value == pytest.approx(0.5)
    assert metrics["energy_joules"].method == "measured"


def test_energy_without_a_meter_is_modelled_with_its_formula(tmp_path: Path) -> None:
    """Null from the meter; processor seconds x watts, said in the note, once priced."""
    with Meter(rapl_root=tmp_path) as meter:
        spend(0.05)
    raw = meter.metrics()
    assert raw["energy_joules"].value is None
    assert raw["energy_joules"].note
    metrics = priced(raw, PRICES)
    seconds = raw["cpu_seconds"].value
    assert seconds is not None
    assert metrics["energy_joules"].value == pytest.approx(seconds * PRICES.watts_per_core)
    assert metrics["energy_joules"].method == "modelled"
    assert "W per core" in metrics["energy_joules"].note


def test_a_measured_card_and_a_modelled_processor_add_up_to_modelled() -> None:
    """A sum with a modelled part is modelled, and names both parts."""
    metrics: Metrics = {
        "cpu_seconds": measured(10.0),
        "wall_seconds": measured(5.0),
        "energy_joules": missing("no RAPL"),
        "energy_joules/cpu": missing("no RAPL"),
        "energy_joules/gpu": measured(100.0, "NVML, 1 whole card(s)"),
    }
    total = priced(metrics, PRICES)["energy_joules"]
    assert total.value == pytest.approx(100 + 10 * PRICES.watts_per_core)
    assert total.method == "modelled"
    assert "no RAPL" in total.note
    assert "NVML" in total.note


def test_a_card_that_does_not_say_leaves_the_total_unknown() -> None:
    """Energy, money and carbon are null with the reason, not the processor's share alone."""
    metrics: Metrics = {
        "cpu_seconds": measured(10.0),
        "wall_seconds": measured(5.0),
        "energy_joules/cpu": measured(50.0),
        "energy_joules/gpu": missing("NVML: Not Supported"),
    }
    result = priced(metrics, PRICES)
    assert all(result[name].value is None for name in ("energy_joules", "dollars", "carbon_kg_co2e"))
    assert "Not Supported" in result["dollars"].note


@pytest.mark.parametrize("extra", [{}, {"energy_joules/gpu": measured(7.0)}, {"energy_joules": modelled(1.0, "old")}])
def test_pricing_twice_is_pricing_once(extra: Metrics) -> None:
    """`priced` is idempotent, and the last prices win."""
    metrics: Metrics = {"cpu_seconds": measured(3.0), "wall_seconds": measured(2.0), **extra}
    once = priced(metrics, PRICES)
    assert priced(once, PRICES) == once
    dearer = Prices(watts_per_core=80, dollars_per_hour=9)
    assert priced(once, dearer) == priced(metrics, dearer)
    assert from_json(json.loads(json.dumps(to_json(once)))) == once
