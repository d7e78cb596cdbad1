"""`python -m tasks STAGE`: run one stage. The command dvc.yaml names."""

from __future__ import annotations

import sys

from tasks.core.process import prepare


def main() -> int:
    """Run the stage named on the command line; returns the exit code."""
    from tasks.params import STAGES

    if len(sys.argv) != 2 or sys.argv[1] not in STAGES:
        print(f"usage: python -m tasks {{{','.join(STAGES)}}}", file=sys.stderr)
        return 2
    from tasks import runner

    return runner.main(sys.argv[1])


if __name__ == "__main__":
    prepare()
    sys.exit(main())
