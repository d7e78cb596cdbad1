"""How figures and names are said to a person: humanised units, exact values, labels."""

from __future__ import annotations

import math
import re

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SPELLING = {"flops": "FLOPs", "cpu": "CPU", "mfu": "MFU", "mbu": "MBU", "kv": "KV", "kl": "KL", "co2e": "CO₂e"}
_OWN_CASE = {"gzip", "xz"}


def human(value: float | int | None, unit: str) -> str:
    """A value as a person reads it, e.g. `human(5_312_345, "B")` is "5.31 MB"; None is "n/a"."""
    if value is None:
        return "n/a"
    if not math.isfinite(value):
        return str(value)
    if unit == "s":
        return _duration(value)
    if unit == "$":
        return _money(value)
    if unit == "kg":
        return _scaled(value * 1000, "g")
    if unit == "x":
        return f"{_digits(value)}×"
    amount, slash, per = unit.partition("/")
    if amount in ("FLOP", "B", "J"):
        return _scaled(value, unit)
    if amount in ("", "token"):
        return _number(value) + (f" tokens{slash}{per}" if amount else "")
    return f"{_plain(value)} {unit}"


def span(low: float | None, high: float | None, unit: str) -> str:
    """Two bounds in one unit, e.g. `span(20.0, 31.5, "s")` is "20.0–31.5 s"; "" where there are none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    if unit == "s" and high >= 120:
        scale, word = (3600, "h") if high >= 7200 else (60, "min") if high >= 600 else (1, "s")
        return f"{_digits(low / scale)}–{_digits(high / scale)} {word}"
    first, second = human(low, unit), human(high, unit)
    number, _, word = first.rpartition(" ")
    return f"{number}–{second}" if number and second.endswith(f" {word}") else f"{first}–{second}"


def exact(value: float | int | None, unit: str) -> str:
    """The value with every digit the ledger holds, e.g. "5312345 B"."""
    return "null" if value is None else f"{value!r} {unit}".rstrip()


def brief(name: str, unit: str) -> str:
    """The part of a metric's unit that its name doesn't say yet: of "FLOP/token" in `..._flops_per_token`, "FLOP"."""
    if "_per_" not in name:
        return "" if unit == "token" else unit
    return "" if unit in ("bit/B", "token/s") else unit.partition("/")[0]


def label(name: str) -> tuple[str, str]:
    """The words of a metric and its qualifier: `kv_cache_bytes_per_token/F16` is ("KV cache bytes per token", "F16").

    A unit that ends the name goes, since the value carries its own: `wall_seconds` is "Wall time".
    """
    base, _, qualifier = name.partition("/")
    base = re.sub(r"_(joules|nats)$|(?<=memory)_bytes$|_kg(?=_)", "", base)
    base = re.sub(r"_seconds$", "" if re.search("time|latency", base) else "_time", base).replace(
        "inter_token", "inter-token"
    )
    words = [_SPELLING.get(word, word) for word in base.split("_")]
    if words[0] not in _OWN_CASE:
        words[0] = words[0][0].upper() + words[0][1:]
    return " ".join(words), qualifier


def title(stage: str) -> str:
    """`deploy_profile` is "Deploy profile"."""
    return stage.replace("_", " ").capitalize()


def ratio(value: float | None) -> str:
    """Measured over predicted, e.g. "1.04×"; None is "n/a"."""
    return "n/a" if value is None else f"{value:.2f}×" if 0.1 <= value < 100 else f"{value:.2g}×"


def listed(items: list[str]) -> str:
    """["a", "b", "c"] is "a, b and c"."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def _digits(value: float) -> str:
    """Three significant digits, thousands separated."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 99.95 else f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"


def _scaled(value: float, unit: str) -> str:
    for scale, prefix in _PREFIXES:
        if abs(value) >= 0.9995 * scale:
            text = f"{value:.0f}" if scale == 1.0 and value == int(value) else _digits(value / scale)
            return f"{text} {prefix}{unit}"
    for scale, prefix in _SMALL:
        if unit[0] in "Jg" and abs(value) >= 0.9995 * scale:
            return f"{_digits(value / scale)} {prefix}{unit}"
    return f"{_plain(value)} {unit}"


def _duration(value: float) -> str:
    size = abs(value)
    if size >= 7200:
        hours, minutes = divmod(round(value / 60), 60)
        return f"{hours} h {minutes:02d} min"
    if size >= 120:
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes} min {seconds:02d} s"
    if size >= 0.9995 or size == 0:
        return f"{_digits(value)} s" if size else "0 s"
    return f"{_digits(value * 1e3)} ms" if size >= 0.9995e-3 else f"{_digits(value * 1e6)} µs"


def _money(value: float) -> str:
    size = abs(value)
    if size >= 1 or size == 0:
        return f"${value:,.2f}"
    if size >= 1e-6:
        return f"${value:.{2 - math.floor(math.log10(size))}f}"
    return f"${_scientific(value)}"


def _number(value: float) -> str:
    """A count or a share: 3,421, 5.31 M, 0.431."""
    if value == int(value) and abs(value) < 1e5:
        return f"{int(value):,}"
    return _scaled(value, "").rstrip() if abs(value) >= 1e5 else _plain(value)


def _plain(value: float) -> str:
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 9.9995:
        return _digits(value)
    return f"{value:.3f}" if size >= 0.1 else f"{value:.3g}" if size >= 1e-4 else _scientific(value)


def _scientific(value: float) -> str:
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_RAISED)}"
