"""What a rung will take on this machine, by the ledger's own predictions. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tasks.core.errors import UserError
from tasks.params import Params
from tasks.scaling.plan import Plan
from tasks.scaling.rung import Rung

Cost = Callable[[Rung], float]
"""What a rung takes of the budget, predicted: minutes or FLOPs."""


def predicted_minutes(plan: Plan) -> Cost:
    """Minutes of a rung on this machine, start-up and evaluation included.

    Raises:
        UserError: when called: nothing can be predicted; says why.
    """
    from tasks.ledger import machine, predict

    rates = machine.measure()
    lines: dict[str, tuple[float, float]] = {}

    def at(rung: Rung, steps: int) -> float:
        values: dict[str, Any] = plan.params.model_dump(mode="json")
        values["design"][plan.family] |= {**rung.sizes, "parameters": None}
        values["pretrain"] = {**rung.pretrain, "steps": steps}
        values["evaluate"] = rung.evaluate
        found = predict.plan(Params.model_validate(values), rates)["pretrain"]["wall_seconds"]
        if found.value is None:
            raise UserError(f"the ladder's time can't be predicted: {found.note}", "give it --flops instead")
        return float(found.value)

    def minutes(rung: Rung) -> float:
        key = json.dumps(rung.sizes, sort_keys=True)
        if key not in lines:  # linear in the steps
            few, many = at(rung, 100), at(rung, 200)
            lines[key] = 2 * few - many, (many - few) / 100
        start, step = lines[key]
        return (start + step * rung.steps) / 60

    return minutes
