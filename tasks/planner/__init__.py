"""The planner: what a person has in, the best model for it out. No torch.

Every size of every family is predicted once (`candidates`), trained as long as the limits allow, and judged by the
scaling law (`quality`); `search` keeps what nothing else beats in everything and chooses; `binding` says which limit
matters, or which two cannot hold together.
"""

from __future__ import annotations

from tasks.planner.binding import Gain
from tasks.planner.candidates import Candidate, Shape
from tasks.planner.constraints import Constraints, Limit
from tasks.planner.search import Plan, search

__all__ = ["Candidate", "Constraints", "Gain", "Limit", "Plan", "Shape", "search"]
