"""The process in which a tracker lives: `python -m mer_bench.trackers.child ENTRY FOLDER`.

It reads one JSON object a line, calls the tracker, and says in one line what failed. A tracker that hangs, crashes,
takes the random numbers, sets signal handlers or fills the memory does so here, where no run is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from mer_bench.trackers.tracker import Tracker


def main() -> None:
    """Serve until the run's process closes its end, or is gone."""
    entry, folder = sys.argv[1:]
    # Ctrl-C is the run's to answer; this process ends when the run's end of the pipe is closed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Whatever the library prints belongs on nobody's screen.
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    try:
        module, _, name = entry.partition(":")
        tracker: Tracker = getattr(import_module(module), name)(Path(folder))
        _serve(tracker)
        tracker.close()
    except BaseException as error:  # whatever it is, it is told in a line and ends this process alone
        _tell(answers, {"fault": _sentence(error)})
        os._exit(1)
    _tell(answers, {"closed": True})
    # Some libraries leave threads behind that would keep the process alive.
    os._exit(0)


def _serve(tracker: Tracker) -> None:
    under_way = False
    for line in sys.stdin:
        call: dict[str, Any] = json.loads(line)
        what = call.pop("call")
        if what == "end":
            call["record"] = Path(call["record"])
        getattr(tracker, what)(**call)
        under_way = what in ("begin", "epoch")
    if under_way:
        tracker.fail("the process of the run is gone")


def _sentence(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _tell(answers: TextIO, message: dict[str, Any]) -> None:
    try:
        answers.write(json.dumps(message) + "\n")
        answers.flush()
    except OSError:  # the run's process is gone
        pass


if __name__ == "__main__":
    main()
