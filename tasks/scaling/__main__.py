"""`python -m tasks.scaling FOLDER DATA`: train one rung of the ladder, in a process of its own."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

from tasks.core.errors import UserError
from tasks.core.process import prepare


def main() -> int:
    """Train the rung of a folder; returns the exit code. What went wrong stays in `error.txt` for whoever asked."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m tasks.scaling", description=__doc__)
    parser.add_argument("folder", type=Path, help="as the ladder prepared it")
    parser.add_argument("data", type=Path, help="what the data stage wrote")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop at a step after that long")
    parser.add_argument("--flops", type=float, default=math.inf, help="stop at a step after that many")
    given = parser.parse_args()
    from tasks.scaling.rung import train

    def over_budget(flops: float) -> str:
        if time.monotonic() - started > given.seconds:
            return "the ladder's minutes are used up"
        return "the ladder's FLOPs are used up" if flops > given.flops else ""

    note = given.folder / "error.txt"
    note.unlink(missing_ok=True)
    try:
        train(given.folder, given.data, over_budget)
    except UserError as error:
        note.write_text(str(error), encoding="utf-8")
        return error.code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    prepare()
    sys.exit(main())
