"""Where points run: a second project folder, with parameters and outputs of its own, and the first one's cache.

Nothing of the project is touched, so nothing has to be put back, whenever a comparison is killed. What comes before the
stage is linked, not copied. DVC's cache is shared, and with it the memory of every run: a point that was computed here or by
`leanlm run` is not computed again by either. (`dvc exp run --temp` does the same by way of a commit, so it needs git, leaves
untracked inputs out, and copies what the stages before have made.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from flows import history, repro
from flows.compare.points import Point
from flows.environment import WORK
from tasks.core.errors import UserError
from tasks.core.files import write_whole
from tasks.ledger import report
from tasks.params import PATH, STAGES, render

OWN = ("params.yaml", "dvc.yaml", "dvc.lock", "artifacts", "reports", "work", "mlruns")
"""What a bench has for itself."""
LINKED = (".dvcignore",)
"""Hidden files that it has as the project has them."""


class Bench:
    """The bench of one stage.

    Args:
        stage: the one that runs there.
    """

    def __init__(self, stage: str) -> None:
        self.stage, self.folder = stage, WORK / "compare" / stage
        self._made = False

    def run(self, point: Point, invocation: str) -> dict[str, Any]:
        """Bring the stage up to date with the parameters of `point`; its report, as `report.read` gives it.

        Raises:
            StageFailed: in the stage's own words.
        """
        if not self._made:
            self._make()
        write_whole(self.folder / PATH, render(point.params))
        repro.bring_up(self.stage, invocation, self.folder)
        found = report.read(self.stage, point.params.prices, self.folder)
        if found is None:
            raise UserError(
                f"{self.folder / report.path(self.stage)}: {self.stage} ended well and wrote no report",
                f"look at what `cmd` of {self.stage} is in dvc.yaml; all it said: {WORK}/logs/{self.stage}.log",
            )
        return found

    def history(self) -> list[history.Row]:
        """The rows of the stage's history, if it keeps one."""
        path = self.folder / history.path_of(self.stage)
        return history.parse(path.read_text(encoding="utf-8")) if path.exists() else []

    def _make(self) -> None:
        """As the project is now: a bench that is there is brought up to date, its unfinished work kept."""
        for name in ("artifacts", "reports", "work", ".dvc"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        visible = {path.name for path in Path().iterdir() if not path.name.startswith(".") or path.name in LINKED}
        _link(Path(), self.folder, visible - set(OWN))
        before = list(STAGES)[: list(STAGES).index(self.stage)]
        _link(
            Path("artifacts"), self.folder / "artifacts", {name for name in before if Path("artifacts", name).exists()}
        )
        for name in before:
            if report.path(name).exists():
                shutil.copyfile(report.path(name), self.folder / report.path(name))
        shutil.copyfile("dvc.yaml", self.folder / "dvc.yaml")
        write_whole(self.folder / ".dvc" / "config", _config())
        self._made = True


def _link(source: Path, target: Path, names: set[str]) -> None:
    """Link what has these names in `source` into `target`; links to what is gone go."""
    for path in target.iterdir():
        if path.is_symlink() and (path.name not in names or path.readlink() != (source / path.name).resolve()):
            path.unlink()
    for name in names:
        if not (target / name).is_symlink():
            (target / name).symlink_to((source / name).resolve())


def _config() -> str:
    """DVC's settings: the project's cache, wherever that is, and hard links into it: a bench edits nothing in place."""
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    if done.returncode != 0 or not done.stdout.strip():
        raise UserError(
            f".dvc/config: DVC cannot tell its cache: {done.stderr.strip()}", "`dvc cache dir` shows it; mend the file"
        )
    cache = Path(done.stdout.strip()).absolute()
    lines = ["[core]", "no_scm = true", "analytics = false", "check_update = false", "[cache]", f"dir = {cache}"]
    return "\n".join([*lines, "type = hardlink,reflink,copy", ""])
