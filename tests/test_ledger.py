"""The measuring half of the ledger: time, memory, energy, machine, budget, prices."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.ledger import Budget, Prices
from tasks.ledger.meter import Meter, Spent
from tasks.ledger.watch import Watch

PRICES = Prices()


def spend(seconds: float) -> None:
    """Keep one core busy."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


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


CHILDREN = """
import subprocess, sys
sys.path.insert(0, {root!r})
from tasks.ledger.meter import Meter
script = "b = bytearray({{}} << 20); b[::4096] = b'x' * len(b[::4096])"
subprocess.run([sys.executable, "-c", script.format(300)], check=True)
with Meter() as meter:
    pass
print(meter.metrics()["peak_memory_bytes"].value)
with Meter() as meter:
    subprocess.run([sys.executable, "-c", script.format(400)], check=True)
print(meter.metrics()["peak_memory_bytes"].value)
"""


def test_a_child_counts_only_if_it_began_after_the_meter() -> None:
    """What ran in a process before the stage leaves no trace in its peak; a large child of the stage does."""
    script = CHILDREN.format(root=str(Path(__file__).parents[1]))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, during = map(int, done.stdout.split())
    assert before < 300 << 20
    assert during > 400 << 20


def test_living_children_count_and_are_not_counted_again_when_they_end(tmp_path: Path) -> None:
    """Processor time and memory of a child and of its child, while they live, are on the disk before a kill; reaped, once."""
    inner = (
        "b = bytearray(150 << 20); b[::4096] = b'x' * len(b[::4096]); sum(range(2 * 10**7)); print(flush=True); input()"
    )
    outer = f"import subprocess, sys; sum(range(10**7)); sys.exit(subprocess.run([sys.executable, '-c', {inner!r}]).returncode)"
    path = tmp_path / "spent.json"
    with Meter() as meter:
        idle = meter.spent(fresh=True)
        child = subprocess.Popen(
            [sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        alive = meter.spent(fresh=True)
        meter.save(path, force=True)
        held = Watch(Budget(), {}, meter, PRICES).spent()["memory_bytes"]
        child.communicate("\n")
        ended = meter.spent(fresh=True)
    own_idle = idle.peak_memory
    assert Spent.load(path).cpu >= alive.cpu > idle.cpu + 0.2
    assert alive.cpu <= ended.cpu < alive.cpu + 0.3
    assert isinstance(held, int)
    assert held > 150 << 20
    assert ended.peak_memory >= max(own_idle, 150 << 20)
    assert meter.living.resident == 0


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
        watch = Watch(limits, {}, meter, PRICES, tmp_path / "spent.json")
        watch(0.0)
        start = time.process_time()
        for _ in range(500):
            assert watch(1.0) == ""
        cost = (time.process_time() - start) / 500
    assert cost < 0.01 * 20e-3
