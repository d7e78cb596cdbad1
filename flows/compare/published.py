"""A comparison in MLflow: a run "compare <stage>", a child per point. Each appears once, whoever publishes how often."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

from flows.compare.record import Outcome, path_of
from flows.compare.table import Table
from flows.lineage import commit, figures
from flows.runs import IDENTITY, Runs
from tasks.params import flatten


def identities(table: Table) -> dict[str, str]:
    """Point -> hash of what it is and what was measured; "" -> that of the comparison."""
    rows = (*table.rows, *table.others)
    found = {row.point.name: _hash(_content(table.stage, row)) for row in rows}
    return {**found, "": _hash([table.stage, table.how, table.quality, *sorted(found.values())])}


def publish(runs: Runs, table: Table) -> int:
    """Whatever isn't there yet; the number of points that were new."""
    known, new, children = identities(table), 0, {}
    for row in (*table.rows, *table.others):
        there = runs.find(f"tags.`{IDENTITY}` = '{known[row.point.name]}'")
        children[row.point.name] = there[0] if there else _child(runs, table, row, known[row.point.name])
        new += not there
    if runs.find(f"tags.`{IDENTITY}` = '{known['']}'"):
        return new
    marks = {"leanlm.kind": "comparison", "leanlm.stage": table.stage, **commit()}
    start = min(child.info.start_time for child in children.values())
    parent = runs.client.create_run(
        runs.experiment, start_time=start, tags=marks, run_name=f"compare {table.stage}"
    ).info.run_id
    links = "\n".join(
        f"- [{name}](#/experiments/{runs.experiment}/runs/{child.info.run_id})" for name, child in children.items()
    )
    runs.write(parent, {"equal": table.how, "quality": table.quality}, {}, {"mlflow.note.content": links})
    for child in children.values():
        if "mlflow.parentRunId" not in child.data.tags:
            runs.client.set_tag(child.info.run_id, "mlflow.parentRunId", parent)
    runs.client.set_terminated(parent, "FINISHED")
    runs.client.set_tag(parent, IDENTITY, known[""])
    return new


def _child(runs: Runs, table: Table, row: Outcome, identity: str) -> Any:
    """A point's run; killed half-way, it has no identity and is made again."""
    seconds = row.value("wall_seconds") or 0.0
    start = round(1000 * (time.time() - seconds))
    marks = {"leanlm.kind": "point", "leanlm.stage": table.stage, "leanlm.point": row.point.name}
    if row.reason:
        marks["leanlm.reason"] = row.reason[:5000]
    info = runs.client.create_run(runs.experiment, start_time=start, tags=marks, run_name=row.point.name).info
    if row.rows:
        runs.extend_curve(info, list(row.rows), -1)
    block = {table.stage: row.point.params.model_dump(mode="json")[table.stage]}
    values = dict(flatten(_chosen(block[table.stage]), f"{table.stage}."))
    step = max((int(one["step"]) for one in row.rows), default=0)
    runs.write(info.run_id, values, figures(row.report) if row.report else {}, {}, step)
    path = path_of(table.stage, row.point)
    if path.exists():
        runs.client.log_artifact(info.run_id, str(path))
    runs.client.set_terminated(info.run_id, "FINISHED" if row.state == "done" else "FAILED")
    runs.client.set_tag(info.run_id, IDENTITY, identity)
    return runs.client.get_run(info.run_id)


def _chosen(block: dict[str, Any]) -> dict[str, Any]:
    """A block without the techniques that aren't chosen, at every depth."""
    method = block.get("method")
    kept = {name: value for name, value in block.items() if method is None or not isinstance(value, dict)}
    kept |= {name: block[name] for name in ("schedule", "optimizer", method) if name in block}
    return {
        name: _chosen(value) if isinstance(value, dict) and name != method else value for name, value in kept.items()
    }


def _content(stage: str, row: Outcome) -> list[Any]:
    found = row.report
    return [stage, row.point.name, row.point.values, row.state, row.reason, found.get("key"), found.get("finished")]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
