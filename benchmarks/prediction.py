"""Predicted beside measured, on shapes that no constant was fitted to and no calibration has seen.

`python benchmarks/prediction.py [--quick] [--folder work/prediction] [--out benchmarks/results]`

First a calibration set runs, whose scores correct later predictions; then the held-out set is predicted from those
scores alone, and run. Every stage is a process of its own (`python -m tasks STAGE`) in a workspace beside the project.
What has been measured already is not measured again: interrupted, the same command goes on. Time is compared as
processor seconds, which other processes disturb less. The peers (`peers.py`) are given the same measured peaks.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from benchmarks import cases, table  # noqa: E402
from benchmarks.cases import Case  # noqa: E402
from tasks import params  # noqa: E402
from tasks.core.schema import validate  # noqa: E402

PROJECT = ("tasks", "dvc.yaml", "data/none")
SOURCES = ("asyncio", "email", "http", "logging", "multiprocessing", "unittest", "urllib", "xml")
TIMEOUT_SECONDS = 300


class Workspace:
    """A copy of the project's stages, a text, and what has been measured so far.

    Args:
        root: where it lies; made if it isn't there.
        quick: a few small modules are text enough.
    """

    def __init__(self, root: Path, quick: bool) -> None:
        self.root, self.results = root, root / "results"
        if not (root / "complete").exists():
            shutil.rmtree(root, ignore_errors=True)
            self._build(SOURCES[2:4] if quick else SOURCES)

    def _build(self, sources: tuple[str, ...]) -> None:
        for name in PROJECT:
            source, target = ROOT / name, self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)
        library = Path(sysconfig.get_paths()["stdlib"])
        for path in sorted(file for name in sources for file in (library / name).rglob("*.py")):
            target = self.root / "data/source" / path.relative_to(library)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        self.results.mkdir()
        (self.root / "complete").touch()

    def result(self, case: Case, stage: str) -> Path:
        """Where a measurement lies."""
        kind = "held_out" if case.held_out else "calibration"
        return self.results / kind / f"{case.name.replace(' ', '_')}.{stage}.json"

    def done(self, case: Case) -> bool:
        """Whether every stage of a case has been measured, or has failed."""
        return all(self.result(case, stage).exists() for stage in ("design", *case.stages))

    def run(self, case: Case) -> None:
        """Measure a case, in the order of its stages; the rest is given up where one fails."""
        values = params.override(params.Params().model_dump(mode="json"), case.parameters)
        text = params.render(validate(params.Params, values))
        (self.root / "params.yaml").write_text(text, encoding="utf-8")
        shutil.rmtree(self.root / "artifacts", ignore_errors=True)  # a stage must not read another case's model
        self._take_data(case)
        failed = ""
        for stage in ("design", *case.stages):
            path = self.result(case, stage)
            path.parent.mkdir(parents=True, exist_ok=True)
            failed = failed or self._measure(case, stage, path)
            if failed:
                path.write_text(json.dumps({"case": case.name, "stage": stage, "failed": failed}), encoding="utf-8")

    def _take_data(self, case: Case) -> None:
        """The text of the case's vocabulary, made once; its making is a measurement too."""
        kept, place = self.root / f"data-{case.vocabulary}", self.root / "artifacts/data"
        if not kept.exists():
            path = self.result(case, f"data-{case.vocabulary}")
            path.parent.mkdir(parents=True, exist_ok=True)
            problem = self._measure(case, "data", path)
            if problem:
                raise SystemExit(f"data: {problem}")
            os.replace(place, kept)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(kept, place)

    def _measure(self, case: Case, stage: str, path: Path) -> str:
        """Run one stage and keep its report; returns what went wrong, or ""."""
        if case.held_out:
            self._scores_of_calibration()
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {case.name}: {stage}\n")
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LEANLM_INVOCATION")}
        command = [sys.executable, "-m", "tasks", stage]
        try:
            done = subprocess.run(
                command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
            )
        except subprocess.TimeoutExpired:
            return f"took more than {TIMEOUT_SECONDS} s"
        if done.returncode != 0:
            return (done.stderr.strip().splitlines() or ["no message"])[-1]
        report = json.loads((self.root / f"reports/{stage}.json").read_text(encoding="utf-8"))
        measured = {key: report[key] for key in ("stage", "metrics", "predicted", "machine", "versions", "finished")}
        document = measured | {
            "case": case.name,
            "parameters": case.parameters,
            "config": self._config(),
            "score": self._last_score(),
            "machine_rates": self._rates(),
        }
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
        os.replace(temporary, path)
        return ""

    def _config(self) -> dict[str, Any]:
        path = self.root / "artifacts/design/blueprint.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def _scores(self) -> Path | None:
        return next(iter(sorted((self.root / "hardware").glob("*.scores.jsonl"))), None)

    def _last_score(self) -> dict[str, Any] | None:
        path = self._scores()
        return None if path is None else dict(json.loads(path.read_text(encoding="utf-8").splitlines()[-1]))

    def _scores_of_calibration(self) -> None:
        """Nothing but the calibration's scores, so that no held-out run helps another."""
        path = self._scores()
        if path is None:
            return
        found = [json.loads(file.read_text(encoding="utf-8")) for file in (self.results / "calibration").glob("*.json")]
        kept = sorted((one["score"] for one in found if one.get("score")), key=lambda score: str(score["date"]))
        path.write_text("".join(json.dumps(score) + "\n" for score in kept), encoding="utf-8")

    def _rates(self) -> dict[str, Any]:
        files = list((self.root / "hardware").glob("*.json"))
        return dict(json.loads(files[0].read_text(encoding="utf-8"))) if files else {}


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two tiny models: for tests of the benchmark itself")
    parser.add_argument("--folder", type=Path, default=ROOT / "work/prediction", help="workspace and measurements")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/results", help="receives prediction.json and .md"
    )
    arguments = parser.parse_args()
    workspace = Workspace(arguments.folder.resolve(), arguments.quick)
    chosen = cases.QUICK if arguments.quick else (*cases.CALIBRATION, *cases.HELD_OUT)
    for case in chosen:
        if not workspace.done(case):
            workspace.run(case)
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(workspace.results.glob("held_out/*.json"))]
    document, text = table.summary(found)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "prediction.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (arguments.out / "prediction.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
