"""The default text: the source of the interpreter's own standard library, about 30 MB that every installation carries."""

from __future__ import annotations

import sys
import sysconfig
import tokenize
from pathlib import Path
from typing import Any

from tasks.acquire.maker import Maker


def python_files(root: Path) -> list[Path]:
    """Every `.py` file below `root` that is the interpreter's own, in a stable order."""
    foreign = {"site-packages", "dist-packages", "__pycache__"}
    return sorted(path for path in root.rglob("*.py") if not foreign & set(path.relative_to(root).parts))


class Stdlib(Maker):
    """The source text of the running interpreter's standard library (Python Software Foundation License)."""

    def identity(self) -> dict[str, Any]:
        """Another interpreter carries another text."""
        return {"python": sys.version}

    def make(self, out: Path) -> None:
        """Write `stdlib.parquet` (columns path, text); files that are no text by their own declaration are left out."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        root = Path(sysconfig.get_paths()["stdlib"])
        paths, texts = [], []
        for path in python_files(root):
            try:
                with tokenize.open(path) as file:
                    text = file.read()
            except (SyntaxError, UnicodeDecodeError):
                continue
            paths.append(path.relative_to(root).as_posix())
            texts.append(text)
        pq.write_table(pa.table({"path": paths, "text": texts}), out / "stdlib.parquet", compression="zstd")
