"""From measurements to the table: how far every predictor is off, metric by metric, on held-out shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks import peers
from benchmarks.peers import Peaks
from tasks.ledger.machine import Machine

GOALS = {"CPU-seconds": 1.15, "peak memory": 1.05, "FLOPs": 1.01, "bytes": 1.01}
"""Geometric mean of max(r, 1/r) that is aimed at."""

PREDICTORS = ("corrected", "formulas", "6ND", "llm-analysis", "LLM-Viewer")
"""Ours after and before correction by the calibration runs, and the peers."""

PEERS_OF = {"training_seconds", "decode_tokens_per_second", "cpu_seconds", "flops"}
"""Metrics that any of the peers speaks about."""


@dataclass(frozen=True)
class Row:
    """One metric of one stage of one case.

    Attributes:
        case, stage, metric: which.
        group: of metrics it is counted with.
        measured: what was measured or counted.
        predicted: predictor -> its figure, where it has one.
        inside: whether the measurement lies between the prediction's bounds; None: it had none.
    """

    case: str
    stage: str
    metric: str
    group: str
    measured: float
    predicted: dict[str, float]
    inside: bool | None

    def ratio(self, predictor: str) -> float | None:
        """Predicted divided by measured."""
        found = self.predicted.get(predictor)
        return None if found is None else found / self.measured


def group_of(metric: str) -> str:
    """Group of a metric; "" for one that isn't compared."""
    name = metric.partition("/")[0]
    groups = {
        "cpu_seconds": "CPU-seconds",
        "training_seconds": "training seconds (wall)",
        "peak_memory_bytes": "peak memory",
        "flops": "FLOPs",
        "decode_tokens_per_second": "decode tokens/s",
    }
    counted = ("model_bytes", "optimizer_bytes", "adapter_bytes", "checkpoint_bytes", "delivery_bytes", "cache_bytes")
    return groups.get(name, "bytes" if name in counted else "")


def rows(result: dict[str, Any]) -> list[Row]:
    """The comparable metrics of one measurement."""
    raw = (result.get("score") or {}).get("raw", {})
    found = []
    for metric, entry in result["predicted"].items():
        measured, group = result["metrics"].get(metric, {}), group_of(metric)
        if not group or not entry["value"] or not measured.get("value") or measured["method"] == "modelled":
            continue
        predicted = {"corrected": entry["value"], "formulas": raw.get(metric, entry["value"])}
        predicted |= _peers(result, metric)
        value = float(measured["value"])
        inside = entry["low"] <= value <= entry["high"] if entry.get("low") is not None else None
        found.append(Row(result["case"], result["stage"], metric, group, value, predicted, inside))
    return found


def _peers(result: dict[str, Any], metric: str) -> dict[str, float]:
    """What the peers say of a metric, where they say anything."""
    name, _, engine = metric.partition("/")
    config, stage = result["config"], result["stage"]
    if name not in PEERS_OF or not config or (name == "decode_tokens_per_second") != (stage == "deploy_profile"):
        return {}
    machine = Machine(**result["machine_rates"]["rates"])
    size = result["metrics"].get("parameters", result["predicted"].get("parameters", {})).get("value")
    if stage == "deploy_profile":
        answers = _decode(result, config, machine, engine)
    elif stage in ("pretrain", "finetune"):
        answers = _training(result, config, machine, int(size))
    else:
        return {}
    return {peer: figures[name] for peer, figures in answers.items() if name in figures}


def _training(
    result: dict[str, Any], config: dict[str, Any], machine: Machine, size: int
) -> dict[str, dict[str, float]]:
    """6ND trains anything; llm-analysis a dense model, every weight of it."""
    stage, chosen = result["stage"], result["parameters"]
    exact = chosen.get(f"{stage}.precision") == "fp32"
    peaks = Peaks.of(machine, "float32" if exact or not machine.native_bf16 else "bfloat16")
    answers = {"6ND": peers.six_nd(size, result["metrics"]["tokens"]["value"], peaks)}
    if stage == "pretrain" and peers.is_llama(config):
        batch, context = chosen["pretrain.batch_size"], chosen["pretrain.context_length"]
        steps = result["metrics"]["tokens"]["value"] // (batch * context)
        answers["llm-analysis"] = peers.llm_analysis_training(config, batch, context, int(steps), peaks)
    return answers


def _decode(
    result: dict[str, Any], config: dict[str, Any], machine: Machine, engine: str
) -> dict[str, dict[str, float]]:
    """Weights in the bytes they have in the file that the engine reads."""
    peaks, size = Peaks.of(machine, "float32"), result["score"]["raw"].get("parameters")
    file = "safetensors" if engine == "transformers" else result["parameters"].get("deploy_profile.serve", "Q8_0")
    weights = result["metrics"][f"model_bytes/{file}"]["value"]
    size = size or weights / {"safetensors": 4, "Q8_0": 34 / 32}.get(file, 4)
    if not peers.is_llama(config):
        return {"6ND": peers.two_n(int(size), peaks)}
    each, position = weights / size, result["parameters"]["deploy_profile.max_new_tokens"] // 2 + 32
    return {
        "6ND": peers.two_n(int(size), peaks),
        "llm-analysis": peers.llm_analysis_decode(config, position, peaks, each),
        "LLM-Viewer": peers.llm_viewer_decode(config, position, peaks, each),
    }


def off(ratios: Iterable[float | None]) -> float | None:
    """Geometric mean of max(r, 1/r); None without any."""
    logs = [abs(math.log(ratio)) for ratio in ratios if ratio]
    return math.exp(sum(logs) / len(logs)) if logs else None


def summary(results: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """The document and the Markdown text of all measurements."""
    failed = [result for result in results if "failed" in result]
    found = [row for result in results if "failed" not in result for row in rows(result)]
    groups = sorted({row.group for row in found}, key=lambda group: (group not in GOALS, group))
    lines = [
        "Geometric mean of max(predicted/measured, measured/predicted); 1 is perfect. Held-out shapes only.",
        "",
        "| metric | figures | goal | " + " | ".join(PREDICTORS) + " | inside its 90 % bounds |",
        "|---|---|---|" + "---|" * (len(PREDICTORS) + 1),
    ]
    document: dict[str, Any] = {"groups": {}, "rows": [], "failed": failed}
    for group in groups:
        members = [row for row in found if row.group == group]
        spread = {name: off(row.ratio(name) for row in members) for name in PREDICTORS}
        bounded = [row.inside for row in members if row.inside is not None]
        share = f"{sum(bounded)} of {len(bounded)}" if bounded else "n/a"
        goal = f"{GOALS[group]:.2f}" if group in GOALS else ""
        cells = " | ".join(_cell(value) for value in spread.values())
        lines.append(f"| {group} | {len(members)} | {goal} | {cells} | {share} |")
        document["groups"][group] = {"figures": len(members), "goal": GOALS.get(group), "inside": share, **spread}
    lines += ["", *_company(results), *_details([row for row in found if row.group != "bytes"])]
    lines += [f"- {result['case']}, {result['stage']}: failed: {result['failed']}" for result in failed]
    document["rows"] = [vars(row) for row in found]
    return document, "\n".join(lines) + "\n"


def _company(results: list[dict[str, Any]]) -> list[str]:
    """How quiet the machine was: when its rates were measured, and during the runs."""
    shares = sorted(float((result.get("score") or {}).get("others") or 0.0) for result in results)
    busy = {result["machine_rates"]["rates"].get("busy", "") for result in results if result.get("machine_rates")}
    if not shares:
        return []
    said = f"Other processes kept {shares[len(shares) // 2]:.0%} of the cores busy during the median run"
    return [f"{said}; while the peaks were measured: {'; '.join(sorted(busy)) or 'not known'}.", ""]


def _details(found: list[Row]) -> list[str]:
    """Every single comparison."""
    head = "| case | stage | metric | measured | " + " | ".join(PREDICTORS) + " |"
    lines = [
        "predicted/measured, one by one (bytes left out):",
        "",
        head,
        "|---|---|---|---|" + "---|" * len(PREDICTORS),
    ]
    for row in sorted(found, key=lambda row: (row.metric, row.case)):
        cells = " | ".join(_cell(row.ratio(name)) for name in PREDICTORS)
        lines.append(f"| {row.case} | {row.stage} | {row.metric} | {row.measured:.4g} | {cells} |")
    return lines


def _cell(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
