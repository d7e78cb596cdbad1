"""Public accelerators: the table adds up, names are found, and machines with them say what is assumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.core.errors import UserError
from tasks.core.files import read_yaml
from tasks.ledger.accelerators import TABLE, accelerators, find, machine_of
from tasks.ledger.machine import Machine
from tests import toy

HOST = Machine({"float32": 2e11, "bfloat16": 1e12}, 3e10, 3e10, 1e9, True, 2, name="a-host")


@pytest.mark.parametrize("name", list(accelerators()))
def test_an_accelerator_adds_up(name: str) -> None:
    """Peaks rise as the bits fall and are dense; a roofline's ridge is where such machines have it; a price is dated."""
    entry = accelerators()[name]
    peaks = {str(dtype): rate for dtype, rate in entry.flops_per_second.items()}
    order = [peaks[dtype] for dtype in ("float32", "tf32", "bfloat16", "float8", "int8") if dtype in peaks]
    assert order == sorted(order)
    assert 5 < peaks["bfloat16"] / entry.bandwidth_bytes_per_second < 500
    assert 1e10 < peaks["bfloat16"] / entry.watts < 3e12
    assert entry.memory_bytes / entry.bandwidth_bytes_per_second < 0.5
    assert entry.link.bytes_per_second < entry.bandwidth_bytes_per_second
    assert entry.date.year >= 2026
    assert entry.price.reason or (entry.price.date and entry.price.date.year >= 2026)
    assert "assumed" in entry.reach.source
    assert all(words in entry.assumption for words in (entry.name, entry.source, f"{entry.reach.gemm:.0%}"))


def test_the_table_holds_what_was_asked_for() -> None:
    """The eight that people rent or own; NVIDIA's peaks without sparsity."""
    assert set(accelerators()) >= {"a100", "h100", "h200", "l4", "rtx-4090", "mi300x", "m4-max", "core-ultra-7-155h"}
    assert find("a100").flops_per_second["bfloat16"] == 312e12
    assert find("h100").flops_per_second["bfloat16"] < 990e12


def test_a_machine_with_an_accelerator() -> None:
    """Printed figures times the share that is assumed, which it says; processor and disk are the host's."""
    there, entry = machine_of("H100", HOST), find("h100")
    assert there.gemm_flops_per_second["bfloat16"] == pytest.approx(0.8 * 989.4e12)
    assert there.bandwidth_bytes_per_second == pytest.approx(0.9 * 3.35e12)
    assert (there.name, there.device, there.native_bf16) == ("NVIDIA H100 SXM", "cuda", True)
    assert (there.device_watts, there.watts, there.memory_bytes) == (700, 700, 80 * 10**9)
    assert there.dollars_per_hour == entry.price.dollars_per_hour
    assert there.link_bytes_per_second == entry.link.bytes_per_second
    assert (there.cores, there.disk_bytes_per_second) == (HOST.cores, HOST.disk_bytes_per_second)
    assert there.host_bandwidth_bytes_per_second == HOST.host_bandwidth_bytes_per_second
    assert "80%" in there.assumed
    assert "a-host" in there.assumed
    laptop = machine_of("core-ultra-7-155h", HOST)
    assert (laptop.device, laptop.cores, laptop.device_watts, laptop.watts) == ("cpu", 16, 0, 28)
    assert laptop.host_bandwidth_bytes_per_second == laptop.bandwidth_bytes_per_second
    assert laptop.dollars_per_hour is None
    assert not laptop.native_bf16
    assert HOST.assumed == ""


@pytest.mark.parametrize("name", ["rtx-4090", "RTX 4090", "NVIDIA GeForce RTX 4090", "rtx_4090"])
def test_ways_to_write_a_name(name: str) -> None:
    """Short or in full, case and punctuation aside."""
    assert find(name).name == "NVIDIA GeForce RTX 4090"


@pytest.mark.parametrize(
    ("name", "near"),
    [("h10", "h100"), ("4090", "rtx-4090"), ("A-100", "a100"), ("mi300", "mi300x"), ("", ""), ("tpu", "")],
)
def test_an_unknown_accelerator(name: str, near: str) -> None:
    """The nearest name if one is near, and all there are."""
    with pytest.raises(UserError, match="unknown accelerator") as caught:
        find(name)
    assert ("did you mean" in caught.value.hint) == bool(near)
    assert f"did you mean {near}?" in caught.value.hint or not near
    assert all(short in caught.value.hint for short in accelerators())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"watts": -1}, r"l4\.watts: found -1"),
        ({"watts": "many"}, r"l4\.watts: found 'many'"),
        ({"date": None}, r"l4\.date: found None"),
        ({"source": "a leaflet"}, r"l4\.source: found 'a leaflet'"),
        ({"volts": 12}, r"l4\.volts: unknown parameter; allowed here: name"),
        ({"kind": "cpu"}, "l4: a processor takes cores"),
        ({"flops_per_second": {"float32": 1e12}}, "l4: flops_per_second lacks bfloat16"),
        ({"flops_per_second": {"fp32": 1e12}}, r"l4\.flops_per_second\.fp32"),
        ({"price": {}}, r"l4\.price: without dollars_per_hour it takes a reason"),
        ({"price": {"dollars_per_hour": 1.0}}, r"l4\.price: dollars_per_hour takes terms, source and date"),
        ({"verified": False, "note": ""}, "l4: verified: false takes a note"),
    ],
)
def test_a_damaged_table(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """The entry and the figure are named, and what is allowed."""
    path = tmp_path / "accelerators.yaml"
    YAML(typ="safe").dump({"l4": {**read_yaml(TABLE)["l4"], **change}}, path)
    with pytest.raises(UserError, match=words):
        accelerators(path)


def test_the_command_lists_accelerators(tmp_path: Path) -> None:
    """Figures, sources and dates of each; measuring and listing at once is refused; nothing is measured."""
    folder = toy.make(tmp_path / "toy")
    done = toy.leanlm(folder, "hardware", "--list")
    assert done.returncode == 0, done.stderr
    for short, entry in accelerators().items():
        assert f"\n{short}" in done.stdout
        assert entry.source in done.stdout
        assert str(entry.date) in done.stdout
        assert entry.price.source is None or entry.price.source in done.stdout
    assert not (folder / "hardware").exists()
    both = toy.leanlm(folder, "hardware", "--list", "--force")
    assert both.returncode == 2
    assert "--force has no effect" in both.stderr
