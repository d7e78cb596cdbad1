"""The measuring half of the ledger: time, memory, energy, machine, budget, prices."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.core.measure import Metrics, measured, missing, modelled
from tasks.ledger import Budget, Prices, budget, energy
from tasks.ledger.meter import Meter, Spent
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


def test_a_meter_reads_what_a_stage_uses() -> None:
    """Wall time, processor time of itself and of children, and the attempt."""
    with Meter() as meter:
        spend(0.2)
        subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    metrics = meter.metrics()
    cpu, wall = metrics["cpu_seconds"].value, metrics["wall_seconds"].value
    assert cpu is not None
    assert wall is not None
    assert cpu > 0.25
    assert wall > 0.2
    assert metrics["attempts"].value == 1
    assert metrics["peak_device_memory_bytes"].note
    assert meter.metrics()["wall_seconds"].value == wall


PEAK = """
import sys
sys.path.insert(0, {root!r})
from tasks.ledger.meter import Meter
with Meter() as meter:
    block = bytearray({size})
    block[::4096] = b"x" * len(block[::4096])
    del block
print(meter.metrics()["peak_memory_bytes"].value)
"""


def peak_of(size: int) -> int:
    """Peak that a process reports which holds `size` bytes for a moment."""
    script = PEAK.format(root=str(Path(__file__).parents[1]), size=size)
    return int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


def test_peak_memory_is_the_process_s_own() -> None:
    """A short-lived allocation counts; the size of the process that started it does not."""
    ballast = bytearray(300 << 20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    small, large = peak_of(1), peak_of(200 << 20)
    assert small < 150 << 20
    assert 190 << 20 < large - small < 210 << 20


def test_a_child_counts_only_if_it_began_after_the_meter() -> None:
    """What ran in this process before the stage leaves no trace in its peak; a large child of the stage does."""
    script = "b = bytearray({} << 20); b[::4096] = b'x' * len(b[::4096])"
    subprocess.run([sys.executable, "-c", script.format(700)], check=True)
    with Meter() as meter:
        pass
    assert (meter.metrics()["peak_memory_bytes"].value or 0) < 700 << 20
    with Meter() as meter:
        subprocess.run([sys.executable, "-c", script.format(800)], check=True)
    assert (meter.metrics()["peak_memory_bytes"].value or 0) > 800 << 20


def test_a_resumed_stage_reports_every_attempt(tmp_path: Path) -> None:
    """What a killed attempt left is added: costs, attempts, the larger peak."""
    path = tmp_path / "spent.json"
    with Meter(Spent.load(path)) as meter:
        spend(0.05)
        meter.save(path, force=True)
    first = Spent.load(path)
    with Meter(first) as meter:
        spend(0.05)
    total = meter.spent()
    assert total.attempts == 2
    assert total.cpu >= first.cpu + 0.05
    assert total.wall >= first.wall + 0.05
    assert meter.metrics()["attempts"].value == 2
    assert first + Spent() == first


@pytest.mark.parametrize("content", ["", "{", "[]", '{"nonsense": 1}'])
def test_a_damaged_record_of_earlier_attempts_costs_nothing_but_itself(tmp_path: Path, content: str) -> None:
    """A half-written file never stops a stage."""
    path = tmp_path / "spent.json"
    path.write_text(content)
    assert Spent.load(path) == Spent()
    assert Spent.load(tmp_path / "absent.json") == Spent()


def test_one_attempt_without_a_meter_leaves_the_sum_unmetered() -> None:
    """Joules of two attempts are known only if both were metered."""
    metered, blind = Spent(cpu_joules=5.0), Spent(cpu_joules=None)
    assert (metered + metered).joules == 10.0
    assert (metered + blind).joules is None


def test_what_was_spent_is_written_at_most_once_a_second(tmp_path: Path) -> None:
    """Saving is cheap enough for every step."""
    path = tmp_path / "spent.json"
    with Meter() as meter:
        meter.save(path)
        first = path.read_text()
        meter.save(path)
        assert path.read_text() == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["spent.json"]


def test_measuring_costs_less_than_a_hundredth(tmp_path: Path) -> None:
    """A check of every resource, saving included, takes under 1% of a step of 20 ms."""
    limits = Budget(seconds=1e9, joules=1e9, dollars=1e9, flops=1e30, memory_bytes=1 << 60)
    with Meter() as meter:
        watch = budget.Watch(limits, {}, meter, PRICES, tmp_path / "spent.json")
        watch(0.0)
        start = time.process_time()
        for _ in range(500):
            assert watch(1.0) == ""
        cost = (time.process_time() - start) / 500
    assert cost < 0.01 * 20e-3
