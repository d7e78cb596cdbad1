"""The machine: measured once, found again, shown."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from flows import hardware
from tasks.core.errors import UserError
from tasks.ledger import cgroup, machine
from tasks.ledger.machine import Machine
from tasks.ledger.naming import slug
from tests import toy

HOST = Machine({"float32": 2e11, "bfloat16": 1e12}, 3e10, 3e10, 1e9, True, 2, name="a-host")


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A measuring process that takes no time: the parts it prints, fixed; its calls are counted."""
    calls: list[int] = []

    def parts(progress: Callable[[str], None]) -> dict[str, Any]:
        calls.append(1)
        progress("float32 256 x 256 x 256")
        row = {"dtype": "float32", "m": 256, "k": 256, "n": 256, "seconds": 1e-3, "flops_per_second": 2e11}
        lacking = {**row, "dtype": "int8", "seconds": None, "flops_per_second": None, "reason": "not implemented"}
        return {
            "rates": {**asdict(HOST), "busy": f"call {len(calls)}"},
            "gemm": [row, {**row, "dtype": "bfloat16", "flops_per_second": 1e12}, lacking],
            "bandwidth": {"cpu": {"copy": 2e10, "triad": 3e10, "read": 1e10}},
            "disk": {"write_bytes_per_second": 1e9, "read_bytes_per_second": None, "reason": "no cache to drop"},
            "gpus": [{"name": "Card", "memory_bytes": 8 << 30, "watts_limit": 75.0}],
            "power_source": {"source": "battery", "battery_percent": 42.0},
            "load": {"own_seconds": 10.0, "others_seconds": 0.9, "stolen_seconds": 0.2},
        }

    monkeypatch.setattr(machine, "_measured", parts)
    return calls


@pytest.mark.slow
def test_a_real_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part is there; the rates are the best of the tables; it is found again without measuring; nobody is named."""
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    found = machine.measurement(progress=said.append)
    rates = Machine(**found["rates"])
    assert {row["dtype"] for row in found["gemm"]} == {"float32", "bfloat16", "float16", "int8"}
    assert len(said) == len(found["gemm"]) + 1
    for dtype, rate in rates.gemm_flops_per_second.items():
        rows = [row for row in found["gemm"] if row["dtype"] == dtype and row["flops_per_second"] is not None]
        assert rate == max(row["flops_per_second"] for row in rows) > 1e7
        assert all(
            row["flops_per_second"] * row["seconds"] == pytest.approx(2 * row["m"] * row["k"] * row["n"])
            for row in rows
        )
    assert all(row.get("reason") for row in found["gemm"] if row["flops_per_second"] is None)
    assert rates.host_bandwidth_bytes_per_second == max(found["bandwidth"]["cpu"].values()) > 1e8
    assert rates.disk_bytes_per_second == found["disk"]["write_bytes_per_second"] > 1e5
    assert found["disk"]["read_bytes_per_second"] is not None or found["disk"]["reason"]
    assert found["power_source"]["source"] in ("mains", "battery") or found["power_source"]["reason"]
    assert "load average" in rates.busy
    assert found["load"]["own_seconds"] > 0
    assert rates.cores == machine.usable_cores()
    assert rates.memory_bytes > 1 << 28
    kept = tmp_path / "hardware" / f"{rates.name}.json"
    assert [kept] == list((tmp_path / "hardware").iterdir())
    start = time.perf_counter()
    assert machine.measure() == rates
    assert time.perf_counter() - start < 1
    for private in (os.uname().nodename, getpass.getuser(), str(Path.home()), str(tmp_path)):
        assert private not in kept.read_text() or len(private) < 4 or private in ("root", "user")


def test_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instant: list[int]) -> None:
    """Found again; measured anew when asked to; kept in the file of this machine's name."""
    monkeypatch.chdir(tmp_path)
    first = machine.measure()
    assert (tmp_path / machine.kept_at()).is_file()
    assert machine.kept_at().stem == machine.describe()["name"]
    assert machine.measure() == first
    assert len(instant) == 1
    assert machine.measure(force=True).busy == "call 2"
    assert machine.measure().busy == "call 2"


DISK = '"disk_bytes_per_second": 1000000000.0'


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"(?s)(.*)\}.*", r"\1"),
        (r"(?s).*", "[]"),
        (r"(?s).*", "{}"),
        (DISK, '"disk_bytes_per_second": 0.0'),
        (DISK, '"disk_bytes_per_second": "fast"'),
        (DISK, '"disk_bytes_per_second": NaN'),
        ('"bfloat16": 1000000000000.0', '"bfloat": 1'),
        ('"busy"', '"bussy"'),
        ('"power_source"', '"power"'),
        ('"cores": ', '"cores": 1'),
    ],
)
def test_a_file_that_will_not_do_is_measured_anew(tmp_path: Path, instant: list[int], old: str, new: str) -> None:
    """Cut off, empty, a rate that can't be divided by, a field that is missing or unknown, another machine's: replaced."""
    path = tmp_path / "this.json"
    machine.measure(path=path)
    whole = path.read_text()
    damaged = re.sub(old, new, whole, count=1)
    assert damaged != whole
    path.write_text(damaged)
    assert machine.measure(path=path).busy == "call 2"
    assert machine.measure(path=path).busy == "call 2"
    assert len(instant) == 2


def test_a_measuring_process_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence, and nothing is kept."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="speed cannot be measured: no message"):
        machine.measure(path=tmp_path / "this.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("cpu", "cores", "gpus", "name"),
    [
        ("Intel(R) Xeon(R) Processor", 2, [], "intel-xeon-processor-2-cores"),
        ("Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz", 8, [], "intel-core-i7-8550u-8-cores"),
        ("Apple M2", 1, [], "apple-m2-1-core"),
        ("AMD EPYC 7B13", 16, ["NVIDIA L4", "NVIDIA L4"], "amd-epyc-7b13-16-cores-2x-nvidia-l4"),
        ("../../etc", 4, ["a/b"], "etc-4-cores-a-b"),
        ("", 4, [], "processor-4-cores"),
    ],
)
def test_names(cpu: str, cores: int, gpus: list[str], name: str) -> None:
    """What it is made of, as a file's name, and nothing a path could be made of."""
    assert slug(cpu, cores, gpus) == name


def test_cores_of_a_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time a group pays for counts, in whole cores, v2 or v1; without a limit, what may be scheduled on."""
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    free = machine.usable_cores()
    assert cgroup.cores() is None
    for text, cores in (("max 100000", None), ("150000 100000", 2), ("10000 100000", 1), ("", None)):
        (tmp_path / "cpu.max").write_text(text)
        assert cgroup.cores() == cores
    (tmp_path / "cpu.max").write_text("10000 100000")
    assert machine.usable_cores() == 1 <= free
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    for quota, cores in (("-1", None), ("300000", 3)):
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
        assert cgroup.cores() == cores


def test_the_command_shows_what_is_known(tmp_path: Path, instant: list[int]) -> None:
    """Rates by size and dtype, memory, disk, power, where it is kept, and why a cell is empty; nothing is measured again."""
    folder = toy.make(tmp_path / "toy")
    machine.measure(path=folder / machine.kept_at())
    assert len(instant) == 1
    done = toy.leanlm(folder, "hardware")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    for words in (
        f"{machine.describe()['name']}  ({machine.kept_at()}, measured on ",
        "battery, 42 % charged",
        "Card, 8.59 GB, limited to 75 W",
        "256 x 256 x 256  200 GFLOP/s  1.00 TFLOP/s     -",
        "-: int8 not implemented",
        "cpu     20.0 GB/s  30.0 GB/s  10.0 GB/s",
        "1.00 GB/s written and synced, reading unknown: no cache to drop",
        "busy  call 1",
        "too low for a quiet machine: `leanlm hardware --force`",
    ):
        assert words in done.stdout


def test_the_command_outside_a_project(tmp_path: Path) -> None:
    """It says so and leaves nothing."""
    done = toy.leanlm(tmp_path, "hardware")
    assert done.returncode == 2
    assert "not a project folder" in done.stderr
    assert not list(tmp_path.iterdir())


def test_progress_is_one_line_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], instant: list[int]
) -> None:
    """Said once, when measuring begins, on stderr; a machine that is known says nothing."""
    monkeypatch.chdir(tmp_path)
    for forced, lines in ((False, 1), (False, 0), (True, 1)):
        page = hardware.measured(forced)
        said = capsys.readouterr()
        assert said.err.count("measuring this machine") == said.err.count("\n") == lines
        assert not said.out
        assert f"busy  call {len(instant)}" in page


def test_the_measured_machine_of_a_copy_is_found(tmp_path: Path, instant: list[int]) -> None:
    """JSON that another checkout wrote is taken as it is: what is kept holds no path."""
    machine.measure(path=tmp_path / "one" / "this.json")
    (tmp_path / "two").mkdir()
    text = (tmp_path / "one" / "this.json").read_text()
    (tmp_path / "two" / "this.json").write_text(text)
    assert str(tmp_path) not in text
    assert machine.measure(path=tmp_path / "two" / "this.json").busy == "call 1"
    assert len(instant) == 1
    assert json.loads(text)["machine"]["name"] == machine.describe()["name"]
