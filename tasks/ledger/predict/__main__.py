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
    print(json.dumps({stage: to_json(metrics) for stage, metrics in predicted.items()}, indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
