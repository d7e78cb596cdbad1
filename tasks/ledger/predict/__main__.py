"""`python -m tasks.ledger.predict`: the plan for params.yaml as JSON."""

from __future__ import annotations

import json
import sys

from tasks.core.errors import UserError
from tasks.ledger.predict import plan
from tasks.ledger.report import to_json
from tasks.params import load


def main() -> int:
    """Print the plan; returns the exit code."""
    try:
        predicted = plan(load())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    json.dump({stage: to_json(metrics) for stage, metrics in predicted.items()}, sys.stdout, indent=1, ensure_ascii=False)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
