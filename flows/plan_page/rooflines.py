"""A roofline for each phase of the chosen model: how near its work lies to what the machine can multiply or move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.report.svg import INK, MUTED, PAGE, SERIES, draw, logarithmic
from flows.report.words import human

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tasks.ledger.machine import Machine
    from tasks.planner import Plan
    from tasks.planner.roofline import Phase

DTYPES = ("bfloat16", "float32")
"""Peaks that are drawn."""


def pictures(plan: Plan) -> list[dict[str, Any]]:
    """Of each phase: name, picture, and what every kind of work takes at least."""
    from tasks.planner.roofline import phases

    machine, pretrain = plan.field.machine, plan.params.pretrain
    half = pretrain.precision == "bf16" or (pretrain.precision == "auto" and machine.native_bf16)
    found = []
    for phase in phases(plan.chosen, 2 if half else 4):
        dtype = "bfloat16" if half and phase.name == "training" else "float32"
        bandwidth = _bandwidth(plan, phase)
        found.append(
            {
                "name": phase.name,
                "unit": phase.unit,
                "dtype": dtype,
                "picture": _picture(phase, machine, dtype, bandwidth, _reached(plan, phase)),
                "rows": _rows(phase, machine.gemm_flops_per_second[dtype], bandwidth),
                "least": human(phase.seconds(machine.gemm_flops_per_second[dtype], bandwidth), "s"),
                "bound": _bound(phase, machine.gemm_flops_per_second[dtype], bandwidth),
            }
        )
    return found


def _bandwidth(plan: Plan, phase: Phase) -> float:
    """Of the memory the weights lie in: llama.cpp's are the host's."""
    from tasks.planner.figures import engine_of

    machine = plan.field.machine
    host = phase.name != "training" and engine_of(plan.params) == "llama_cpp"
    return machine.host_bandwidth_bytes_per_second if host else machine.bandwidth_bytes_per_second


def _reached(plan: Plan, phase: Phase) -> float | None:
    """Predicted seconds of the phase, where there is a prediction."""
    if phase.name == "decode":
        return plan.chosen.figures["seconds_per_token"]
    rate = plan.stages["pretrain"].get("tokens_per_second") if phase.name == "training" else None
    pretrain = plan.params.pretrain
    return pretrain.batch_size * pretrain.context_length / rate.value if rate is not None and rate.value else None


def _rows(phase: Phase, peak: float, bandwidth: float) -> list[tuple[str, ...]]:
    whole = phase.seconds(peak, bandwidth)
    return [
        (
            work.kind,
            human(work.flops, "FLOP"),
            human(work.bytes, "B"),
            f"{work.intensity:.3g}",
            "arithmetic" if work.flops / peak > work.bytes / bandwidth else "memory",
            f"{work.seconds(peak, bandwidth) / whole:.0%}",
        )
        for work in phase.works
    ]


def _bound(phase: Phase, peak: float, bandwidth: float) -> str:
    """What most of the phase's least time is bound by."""
    memory = sum(w.seconds(peak, bandwidth) for w in phase.works if w.bytes / bandwidth >= w.flops / peak)
    share = memory / phase.seconds(peak, bandwidth)
    return f"memory ({share:.0%} of the time)" if share >= 0.5 else f"arithmetic ({1 - share:.0%} of the time)"


def _picture(phase: Phase, machine: Machine, dtype: str, bandwidth: float, reached: float | None) -> str:
    peaks = {name: machine.gemm_flops_per_second[name] for name in DTYPES if name in machine.gemm_flops_per_second}
    works = [work for work in phase.works if work.flops > 0]
    ridges = [peak / bandwidth for peak in peaks.values()]
    low = min(0.5 * min(work.intensity for work in works), min(ridges) / 30)
    high = max(2 * max(work.intensity for work in works), max(ridges) * 8)
    top, total = max(peaks.values()), sum(work.flops for work in works)

    def paint(axes: Axes) -> None:
        for name, peak in peaks.items():
            used = name == dtype
            ridge = peak / bandwidth
            axes.plot([ridge, high], [peak, peak], color=INK if used else MUTED, linewidth=1.8 if used else 1.0)
            axes.annotate(
                f"{name}  {human(peak, 'FLOP/s')}", (high, peak), (0, 6), textcoords="offset points", ha="right",
                color=INK if used else MUTED, fontsize=10,
            )  # fmt: skip
        axes.plot([low, max(ridges)], [low * bandwidth, max(ridges) * bandwidth], color=INK, linewidth=1.8)
        for index, work in enumerate(works):
            height = min(peaks[dtype], work.intensity * bandwidth)
            tip = f"tip:{work.kind}: {work.intensity:.3g} FLOP/B, {human(height, 'FLOP/s')} at most"
            axes.plot(work.intensity, height, "o", color=SERIES[index], markersize=9, gid=tip, zorder=4)
        floor = low * bandwidth
        if reached:
            rate, intensity = total / reached, total / sum(work.bytes for work in phase.works)
            floor = min(floor, rate)
            axes.plot(
                intensity, rate, "D", markersize=8, markerfacecolor=PAGE, markeredgecolor=INK, markeredgewidth=1.6,
                gid=f"tip:the whole phase as predicted: {human(rate, 'FLOP/s')}", zorder=5,
            )  # fmt: skip
        logarithmic(axes.xaxis, low, high, lambda tick: f"{tick:g}", most=6)
        logarithmic(axes.yaxis, floor / 2, top * 3, lambda tick: human(tick, "FLOP/s"), most=6)
        axes.set_xlabel("FLOPs per byte")

    said = ", ".join(f"{work.kind} {work.intensity:.3g}" for work in works)
    return draw(f"roofline-{phase.name}", f"Roofline of {phase.name}; FLOPs per byte: {said}", 260, paint)
