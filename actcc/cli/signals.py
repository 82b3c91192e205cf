"""Signals that end the process end it as an exception does: files are removed, workers end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_ENDING = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit(128 + number) inside, as a shell reports them.

    A signal that is ignored, as by nohup, stays so. Signals are the main thread's: in another one
    nothing changes.
    """
    mine = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        mine = []
    for number in mine:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    for other in _ENDING:  # a second one would cut short what the first has begun to clean up
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)
