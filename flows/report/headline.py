"""What was made, in one sentence and one table, and how it stands beside gzip and xz."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from flows.report.load import Lifecycle
from flows.report.tables import SUMMED, Cell, shown, total_cell
from flows.report.words import human, label, listed, title
from tasks.core.measure import Value

FLOORS = {"gzip\N{NO-BREAK SPACE}−9": "gzip_bits_per_byte", "xz\N{NO-BREAK SPACE}−9e": "xz_bits_per_byte"}
"""Label -> metric of the stage `data`: general-purpose compressors on the same held-out bytes."""
MODELS, DELIVERY = ("pretrain", "finetune", "compress"), "deploy_profile"
ROW = ("bits_per_byte", "model_bytes", "decode_tokens_per_second", "wall_seconds", "energy_joules", "dollars")


@dataclass(frozen=True)
class Point:
    """Bits per byte of one model: after a stage, and of which file or engine where the stage has several."""

    stage: str
    qualifier: str
    value: float


@dataclass(frozen=True)
class StageRow:
    """One stage: what it did, and per name of `ROW` its cells with their qualifiers."""

    stage: str
    what: str
    cells: list[list[tuple[Cell, str]]]


@dataclass(frozen=True)
class Figure:
    """One of the figures at the top of the page."""

    label: str
    cell: Cell
    aside: str


def sentence(life: Lifecycle) -> str:
    """What was made: family, parameters, tokens, techniques, as far as the stages have come."""
    chosen, stages = life.settings, life.stages
    family = str(life.blueprint.get("model_type") or chosen["design.method"]).capitalize()
    parameters = next((n for s in ("pretrain", "design") if (n := life.value(s, "parameters")) is not None), None)
    made = f"A {family} model" + (f" of {human(parameters, '')} parameters" if parameters is not None else "")
    steps = []
    if "pretrain" in stages:
        steps.append(_pretrained(life))
    if "finetune" in stages and chosen["finetune.steps"]:
        steps.append(f"fine-tuned with {chosen['finetune.method']}")
    if "compress" in stages and chosen["compress.method"] != "none":
        steps.append(f"compressed with {chosen['compress.method']}")
    if "deploy_profile" in stages:
        engines = listed([str(engine) for engine in chosen["deploy_profile.engines"]])
        steps.append(f"delivered as {chosen['deploy_profile.serve']}, profiled under {engines}")
    return f"{made}, {listed(steps)}." if steps else f"{made}, not trained yet."


def _pretrained(life: Lifecycle) -> str:
    tokens = life.value("pretrain", "tokens")
    source = PurePath(str(life.settings["pretrain.init"])).stem
    scratch = source == "none"
    if not tokens:
        return "its weights as initialised" if scratch else f"the weights of {source} as they are"
    start = "from scratch" if scratch else f"on from {source}"
    return f"pretrained {start} on {human(tokens, 'token')}"


def points(life: Lifecycle) -> list[Point]:
    """Bits per byte after each stage, in order."""
    return [
        Point(stage, label(name)[1], entry.value)
        for stage in life.stages
        for name, entry in life.metrics(stage).items()
        if name.partition("/")[0] == "bits_per_byte" and entry.value is not None
    ]


def floors(life: Lifecycle) -> dict[str, float]:
    """Label -> bits per byte of the general-purpose compressors, those that were measured."""
    found = {said: life.value("data", name) for said, name in FLOORS.items()}
    return {said: value for said, value in found.items() if value is not None}


def verdict(life: Lifecycle) -> str:
    """Where the last model stands beside the floors; "" before there is one."""
    found, beside = points(life), floors(life)
    if not found:
        return ""
    last = found[-1]
    text = f"After {title(last.stage).lower()} {last.qualifier}".rstrip()
    text += f" the model codes the held-out text in {last.value:.3f} bits per byte"
    if not beside:
        return f"{text}."
    parts = [
        f"{abs(1 - last.value / v):.0%} {'below' if last.value < v else 'above'} {said}" for said, v in beside.items()
    ]
    return f"{text}, {listed(parts)} on the same bytes."


def rows(life: Lifecycle) -> list[StageRow]:
    """The headline table, a row per stage that has a report."""
    return [StageRow(s, _what(life, s), [_cells(life, s, name) for name in ROW]) for s in life.stages]


def floor_cells(life: Lifecycle) -> dict[str, Cell]:
    """Label -> cell of the floors' bits per byte; "n/a" where they were not measured."""
    found = life.metrics("data")
    absent = Value(None, "measured", "the data stage has not measured it")
    cells = {}
    for said, name in FLOORS.items():
        value = found.get(name, absent)
        cells[said] = shown(name, value) if value.value is not None else Cell("n/a", value.note)
    return cells


def _what(life: Lifecycle, stage: str) -> str:
    chosen = life.settings
    if stage == "data":
        return f"{PurePath(str(chosen['data.source'])).stem}, tokenizer {chosen['data.tokenizer.method']}"
    if stage == "pretrain":
        return f"{chosen['pretrain.steps']} steps"
    if stage == "finetune":
        return f"{chosen['finetune.method']}, {chosen['finetune.steps']} steps"
    return str(chosen[f"{stage}.method"] if f"{stage}.method" in chosen else chosen[f"{stage}.serve"])


def _cells(life: Lifecycle, stage: str, name: str) -> list[tuple[Cell, str]]:
    found = {n: v for n, v in life.metrics(stage).items() if n.partition("/")[0] == name}
    if name == "model_bytes":
        kept = name if stage in MODELS else f"{name}/{life.settings[f'{DELIVERY}.serve']}"
        found = {n: v for n, v in found.items() if n == kept}
    elif name in SUMMED:
        found = {n: v for n, v in found.items() if n == name}
    return [(shown(n, v) if v.value is not None else Cell("n/a", v.note), label(n)[1]) for n, v in found.items()]


def figures(life: Lifecycle) -> list[Figure]:
    """The figures at the top: quality, size, speed, time, energy, money; those that exist."""
    result = []
    if found := points(life):
        last = found[-1]
        name = "/".join(filter(None, ["bits_per_byte", last.qualifier]))
        beside = ", ".join(f"{said} {value:.3f}" for said, value in floors(life).items())
        result.append(Figure("Bits per byte", shown(name, life.metrics(last.stage)[name]), beside))
    result += _delivered(life)
    for name, entry in life.metrics(DELIVERY).items():
        base, engine = name.partition("/")[::2]
        if base == "decode_tokens_per_second" and entry.value is not None:
            result.append(Figure("Tokens per second", shown(name, entry), engine))
    said = {"wall_seconds": "Total time", "energy_joules": "Energy", "dollars": "Cost"}
    for name, words in said.items():
        if (cell := total_cell(life, name)).text:
            count = f"{len(life.stages)} stage" + "s" * (len(life.stages) != 1)
            result.append(Figure(words, cell, count if name == "wall_seconds" else cell.method or ""))
    return result


def _delivered(life: Lifecycle) -> list[Figure]:
    metrics, serve = life.metrics(DELIVERY), str(life.settings[f"{DELIVERY}.serve"])
    for name, aside in ((f"model_bytes/{serve}", serve), ("delivery_bytes", serve), ("model_bytes", "")):
        if (entry := metrics.get(name)) is not None and entry.value is not None:
            return [Figure("Delivered model", shown(name, entry), aside)]
    last = [s for s in life.stages if life.value(s, "model_bytes") is not None]
    return (
        [Figure("Model", shown("model_bytes", life.metrics(last[-1])["model_bytes"]), title(last[-1]))] if last else []
    )
