"""What is delivered and how it behaves: figures per engine, bytes per file."""

from __future__ import annotations

from flows.report.headline import DELIVERY, MODELS
from flows.report.load import Lifecycle
from flows.report.tables import Cell, shown
from flows.report.words import label, title
from tasks.ledger.vocabulary import VOCABULARY

MARKS = {
    "first token": "time_to_first_token_seconds",
    "p50": "inter_token_latency_p50_seconds",
    "p95": "inter_token_latency_p95_seconds",
    "p99": "inter_token_latency_p99_seconds",
}
"""Mark of the latency plot -> metric."""


def engines(life: Lifecycle) -> list[str]:
    """The qualifiers under which latencies were written: one per engine profiled."""
    found = (name.partition("/") for name in life.metrics(DELIVERY))
    return list(dict.fromkeys(qualifier for base, _, qualifier in found if base in MARKS.values()))


def marks(life: Lifecycle) -> dict[str, dict[str, float]]:
    """Engine -> mark -> seconds, where measured."""
    result = {}
    for engine in engines(life):
        found = {mark: life.value(DELIVERY, _qualified(name, engine)) for mark, name in MARKS.items()}
        result[engine or "engine"] = {mark: value for mark, value in found.items() if value is not None}
    return result


def table(life: Lifecycle) -> list[tuple[str, list[Cell]]]:
    """Every metric that names an engine: its words and a cell per engine."""
    metrics, names = life.metrics(DELIVERY), engines(life)
    result = []
    for base in VOCABULARY:
        found = [metrics.get(_qualified(base, engine)) for engine in names]
        if not any(value is not None for value in found) or not all(names):
            continue
        cells = [Cell() if v is None else Cell("n/a", v.note) if v.value is None else shown(base, v) for v in found]
        result.append((label(base)[0], cells))
    return result


def sizes(life: Lifecycle) -> dict[str, float]:
    """Bytes of the model after each stage, then of each exported file."""
    result = {}
    for stage in (s for s in life.stages if s in (*MODELS, DELIVERY)):
        for name, entry in life.metrics(stage).items():
            base, _, qualifier = name.partition("/")
            if base == "model_bytes" and entry.value is not None:
                result[qualifier if stage == DELIVERY and qualifier else f"{title(stage)} {qualifier}".rstrip()] = (
                    entry.value
                )
    return result


def _qualified(name: str, qualifier: str) -> str:
    return f"{name}/{qualifier}" if qualifier else name
