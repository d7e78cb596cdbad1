"""Errors that reach users in their own words, and exit codes."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend: shown without a traceback, exit code `code`.

    Args:
        message: what is wrong, with the path of the parameter or file and what was found there.
        hint: what is allowed, or what to do about it.
    """

    code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class OverBudget(UserError):
    """A resource of `budget:` would be, or has been, used up. What was done so far is kept in a checkpoint."""

    code = 3


class Diverged(UserError):
    """Training produced a loss that is not a number."""

    code = 4
