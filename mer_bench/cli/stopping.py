"""SIGTERM and Ctrl-C while a run goes on: the first lets the epoch end and be saved, a second Ctrl-C stops at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Terminated(KeyboardInterrupt):
    """SIGTERM where nothing is to be waited for: ends the program as Ctrl-C does, with an exit code of its own."""


class StopSignals:
    """Hears both signals from `with` to its end; in another thread than the first it hears nothing.

    Attributes:
        is_worth_waiting: True while training goes on that can be saved. Otherwise the first signal stops at once.
        wanted: `Ctrl-C` or `SIGTERM` once one came, else "".
    """

    def __init__(self) -> None:
        self.is_worth_waiting = False
        self.wanted = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # A shell lets its background jobs ignore Ctrl-C, and that is to stay so.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self.wanted and number == signal.SIGTERM:
            return  # some queues repeat it; the epoch is ending already
        if self.wanted or not self.is_worth_waiting:
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated
        self.wanted = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        # Not through the screen: it may be in the middle of a line, and is not to be entered twice.
        os.write(2, f"\n{self.wanted}: this epoch is finished and saved first; Ctrl-C again stops at once\n".encode())
