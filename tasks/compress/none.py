"""No compression: the yardstick."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tasks.core.schema import Technique
from tasks.evaluate import BESIDE
from tasks.models.adapter import ADAPTER, is_unmerged

if TYPE_CHECKING:
    from tasks.compress.workbench import Workbench


class Uncompressed(Technique):
    """Leave the model as it is (the baseline every technique is compared with)."""

    def apply(self, bench: Workbench) -> str:
        """Copy the model folder byte for byte, without what only the stage before needs (its adapter, how it was judged)."""
        for path in sorted(bench.source.iterdir()):
            if path.is_file() and path.name not in BESIDE:
                shutil.copyfile(path, bench.out / path.name)
        if is_unmerged(bench.source):
            shutil.copytree(bench.source / ADAPTER, bench.out / ADAPTER)
        return "not compressed: byte for byte the model of the stage before"
