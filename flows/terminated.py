"""SIGTERM as a person's wish to stop: what Ctrl-C does, without a terminal that has told the children as well."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came. Unlike after Ctrl-C, only this process has been told."""


def heed() -> None:
    """From now on SIGTERM raises `Terminated`, once; a second one doesn't disturb the tidying up.

    Prefect has a handler of its own while a flow runs; when it has put the flow away, it calls this one.
    """
    if threading.current_thread() is threading.main_thread():  # elsewhere Python refuses
        signal.signal(signal.SIGTERM, _raise)


def _raise(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
