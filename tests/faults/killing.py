"""Runs that are killed again and again, each then ended by the same command and compared with an undisturbed one."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.workshop import Counts, Workshop, differences, record_of, request_of


def kill_runs(folder: Path, kills: int, runs: int, seed: int, say: Callable[[str], object] = lambda _: None) -> Counts:
    """Kill each of so many runs several times, at a random moment or before a random call of the file system.

    Args:
        folder: Empty; the shelf of `tests.faults.shelf` must be on the path of this process and its children.
    """
    drawn = random.Random(seed)
    counts = Counts()
    workshop = Workshop()
    data = folder / "data"
    for number in range(runs):
        whole, cut = folder / f"whole{number}", folder / f"cut{number}"
        workshop.finish(request_of(data, folder / "warm", number))  # prepares the data
        started = time.perf_counter()
        calls = workshop.finish(request_of(data, whole, number))
        took = time.perf_counter() - started
        wanted = kills * (number + 1) // runs - kills * number // runs
        done, attempts = 0, 0
        while done < wanted and attempts < 4 * wanted + 10:
            attempts += 1
            by_call = attempts % 2 == 0
            child, _ = workshop.start(request_of(data, cut, number), drawn.randint(1, calls) if by_call else 0)
            if not by_call:
                child.join(drawn.uniform(0, 1.1 * took))
                child.kill()
            child.join()
            if child.exitcode == -signal.SIGKILL:
                done += 1
            elif child.exitcode != 0:
                counts.lost += 1
                counts.why.append(f"run {number}: ended with {child.exitcode}")
        counts.faults += done
        workshop.finish(request_of(data, cut, number))
        truth, record = record_of(whole, counts, f"run {number}"), record_of(cut, counts, f"run {number}")
        if truth and record and (unlike := differences(truth, whole, record, cut)):
            counts.changed += 1
            counts.why.append(f"run {number}: {', '.join(unlike)} differ from an undisturbed run")
        say(f"run {number + 1} of {runs}: {counts.faults} kills so far, {counts.bad} runs lost, doubled or changed")
        for done_with in (whole, cut):
            shutil.rmtree(done_with, ignore_errors=True)
    return counts
