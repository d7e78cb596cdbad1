"""What is written into the run of a stage, the run of a lifecycle and the model registry, and in which order.

The client is handed in (`flows.track` alone knows where it comes from); whoever calls holds the lock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import file_digest, md5
from pathlib import Path
from typing import Any

from flows import history
from flows.history import Row
from flows.lineage import Stage, commit, figures, identity_of, tags, unchanged

IDENTITY = "leanlm.identity"
"""The tag a run gets last: one that has it is whole."""
VERSION = "leanlm.model_version"
"""The tag with the registry's version of what the run delivers."""
MODEL = "leanlm"
_LINK = "leanlm.stage."


@dataclass
class Runs:
    """The runs of one experiment.

    Attributes:
        client: an `mlflow.MlflowClient`.
        entities: the module `mlflow.entities`.
        experiment: the experiment's id.
        say: told what a person should know.
    """

    client: Any
    entities: Any
    experiment: str
    say: Callable[[str], None]

    def find(self, query: str) -> list[Any]:
        """The runs that match, newest first, deleted ones left out."""
        return list(self.client.search_runs([self.experiment], query, max_results=50_000))

    def open(self, stage: str, key: str, start: int) -> Any:
        """The unfinished run of this stage and work key, else a new one that began at `start` (ms since 1970).

        Whatever ended an earlier attempt: the key is parameters, inputs and code, so the next goes on with its work.
        """
        for run in self.find(f"tags.`leanlm.stage` = '{stage}' AND tags.`leanlm.live` = '{key}'"):
            if IDENTITY not in run.data.tags:
                self.client.update_run(run.info.run_id, status="RUNNING")
                return run.info
        marks = {"leanlm.kind": "stage", "leanlm.stage": stage, "leanlm.live": key}
        return self.client.create_run(self.experiment, start_time=start, tags=marks, run_name=stage).info

    def extend_curve(self, info: Any, rows: list[Row], after: float | None = None) -> float:
        """Send the rows beyond step `after` (None: the last one MLflow has); the last step that it has now."""
        if after is None:
            after = max((point.step for point in self.client.get_metric_history(info.run_id, "loss")), default=-1)
        now = round(time.time() * 1000)
        points = [
            self.entities.Metric(
                name, value, min(info.start_time + round(1000 * row.get("seconds", 0)), now - 1), int(row["step"])
            )
            for row in rows
            if row["step"] > after
            for name, value in row.items()
            if name not in ("step", "seconds")
        ]
        for at in range(0, len(points), 1000):
            self.client.log_batch(info.run_id, metrics=points[at : at + 1000])
        return max([after, *(row["step"] for row in rows)])

    def write(
        self,
        run_id: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        marks: Mapping[str, str],
        step: int = 0,
    ) -> None:
        """Parameters, final figures and tags, in batches as large as MLflow allows."""
        now = round(time.time() * 1000)
        values = [self.entities.Metric(name, value, now, step) for name, value in metrics.items()]
        words = [self.entities.Param(name, v if isinstance(v, str) else json.dumps(v)) for name, v in params.items()]
        labels = [self.entities.RunTag(name, value) for name, value in marks.items()]
        for at in range(0, len(values), 1000):
            self.client.log_batch(run_id, metrics=values[at : at + 1000])
        for at in range(0, max(len(words), len(labels)), 100):
            self.client.log_batch(run_id, params=words[at : at + 100], tags=labels[at : at + 100])

    def publish(self, stages: list[Stage]) -> int:
        """Everything of this lifecycle that isn't there yet; the number of stages that were new."""
        children, new = {}, 0
        for stage in stages:
            found = self.find(f"tags.`{IDENTITY}` = '{stage.identity}'")
            children[stage.name] = found[0].info.run_id if found else self._publish_stage(stage)
            new += not found
        self._publish_lifecycle(stages, children)
        for stage in stages:
            self._register(stage, children[stage.name])
        return new

    def _publish_stage(self, stage: Stage) -> str:
        """Complete the run that followed this stage, or make one."""
        report = stage.report()
        end = _milliseconds(report["finished"])
        wall = report["metrics"].get("wall_seconds")
        info = self.open(stage.name, report["key"], end - round(1000 * ((wall and wall.value) or 0)))
        rows = history.finished(stage.name)
        self.extend_curve(info, rows)
        step = max(
            (int(row["step"]) for row in rows), default=0
        )  # a curve of the same name ends in the report's figure
        self.write(info.run_id, stage.params, figures(report), {**tags(stage, report), **commit()}, step)
        self.client.log_artifact(info.run_id, f"reports/{stage.name}.json")
        self.client.set_terminated(info.run_id, "FINISHED", end_time=end)
        self.client.set_tag(info.run_id, IDENTITY, stage.identity)
        return str(info.run_id)

    def _publish_lifecycle(self, stages: list[Stage], children: dict[str, str]) -> None:
        """The parent run. One that holds some stages of this lifecycle and no others grows."""
        own = identity_of(stages)
        if self.find(f"tags.`{IDENTITY}` = '{own}'"):
            return
        links = {f"{_LINK}{name}": run_id for name, run_id in children.items()}
        runs = [self.client.get_run(run_id) for run_id in children.values()]
        parent = self._grown(links)
        if parent is None:
            start = min(run.info.start_time for run in runs)
            marks = {"leanlm.kind": "lifecycle", **links}
            parent = self.client.create_run(self.experiment, start_time=start, tags=marks, run_name=own[:8]).info.run_id
        params = {name: value for stage in stages for name, value in stage.params.items()}
        values = {f"{stage.name}.{name}": v for stage in stages for name, v in figures(stage.report()).items()}
        table = "\n".join(f"- [{name}](#/experiments/{self.experiment}/runs/{run})" for name, run in children.items())
        self.write(parent, params, values, {**links, "mlflow.note.content": f"The stages of this lifecycle:\n{table}"})
        for run in runs:
            if "mlflow.parentRunId" not in run.data.tags:
                self.client.set_tag(run.info.run_id, "mlflow.parentRunId", parent)
        self.client.set_terminated(parent, "FINISHED", end_time=max(run.info.end_time for run in runs))
        self.client.set_tag(parent, IDENTITY, own)

    def _grown(self, links: dict[str, str]) -> str | None:
        """The parent run with the most stages among those whose every stage is also in `links`."""
        found: dict[str, int] = {}
        for run in self.find("tags.`leanlm.kind` = 'lifecycle'"):
            held = {name: value for name, value in run.data.tags.items() if name.startswith(_LINK)}
            if held.items() <= links.items():
                found[run.info.run_id] = len(held)
        return max(found, key=lambda run_id: found[run_id], default=None)

    def _register(self, stage: Stage, run_id: str) -> None:
        """Make what is served, kept with the run, a version of the registered model; the same bytes only once."""
        file = stage.served()
        if file is None or VERSION in self.client.get_run(run_id).data.tags:
            return
        if not unchanged(stage):
            self.say(f"{file}: not registered: DVC does not vouch for it (`dvc checkout {stage.name}` restores it)")
            return
        digest, size = _content(file)
        if not self.client.search_registered_models(f"name = '{MODEL}'"):
            self.client.create_registered_model(MODEL, description="What `deploy_profile` delivers.")
        versions = [v for v in self.client.search_model_versions(f"name = '{MODEL}'") if v.tags.get("md5") == digest]
        if not versions:
            log = self.client.log_artifacts if file.is_dir() else self.client.log_artifact
            log(run_id, str(file), artifact_path="model")
            marks = {"md5": digest, "bytes": str(size), "file": file.name, "dvc.out.md5": stage.out_md5}
            if (bits := figures(stage.report()).get("bits_per_byte")) is not None:
                marks["bits_per_byte"] = str(bits)
            source = f"{self.client.get_run(run_id).info.artifact_uri}/model"
            versions = [self.client.create_model_version(MODEL, source, run_id, tags=marks)]
        self.client.set_tag(run_id, VERSION, versions[0].version)


def _content(path: Path) -> tuple[str, int]:
    """MD5 and bytes of a file; of a folder, the MD5 of its files' in the order of their names."""
    if path.is_dir():
        parts = [_content(file) for file in sorted(path.iterdir())]
        return md5("".join(digest for digest, _ in parts).encode()).hexdigest(), sum(size for _, size in parts)
    with path.open("rb") as opened:
        return file_digest(opened, "md5").hexdigest(), path.stat().st_size


def _milliseconds(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)
