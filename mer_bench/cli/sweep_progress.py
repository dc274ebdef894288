"""What a person sees while a sweep goes on: a live table on a terminal, a plain line for each run anywhere else."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from mer_bench.cli.console import Column, LiveTable, Screen, duration_text, percent
from mer_bench.cli.stopping import StopSignals
from mer_bench.records import Record
from mer_bench.sweep.estimates import Estimates, time_to_go
from mer_bench.sweep.listening import SweepListener
from mer_bench.sweep.runs import Sweep, SweepRun

COLUMNS = (
    Column("running", narrow="end"),
    Column("epoch", number=True),
    Column("best dev", number=True),
    Column("time", number=True),
)
DRAW_SECONDS = 0.25


@dataclass
class _Running:
    """A run that a worker has begun."""

    run: SweepRun
    since: float = field(default_factory=time.monotonic)
    epoch: str = ""
    best: float | None = None


class SweepProgress(SweepListener):
    """Shows how a sweep goes on; used as a context manager, so that the table always ends.

    Args:
        screen: Where it is shown. estimates: From earlier records; those of this sweep join them.
        signals: What stops a sweep in this process between two epochs.
    """

    def __init__(self, screen: Screen, estimates: Estimates, signals: StopSignals) -> None:
        self._screen = screen
        self._signals = signals
        self._estimates = estimates
        self._table: LiveTable | None = None
        self._left: dict[str, SweepRun] = {}
        self._running: dict[str, _Running] = {}
        self._total = self._done = self._failed = self._workers = 0
        self._drawn = 0.0
        self._is_lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_table()

    def preparing(self, text: str) -> None:
        self._screen.line(text)

    def sweep_started(self, sweep: Sweep, workers: int) -> None:
        self._total = len(sweep.runs)
        self._done = len(sweep.found)
        self._failed = len(sweep.set_aside)
        self._left = {run.identity: run for run in sweep.left}
        self._workers = workers
        if self._screen.is_terminal and self._left:
            self._table = LiveTable(self._screen)
            self._table.__enter__()
            self._draw()

    def workers_changed(self, count: int) -> None:
        before, self._workers = self._workers, count
        if count == 0:
            self._screen.line("no worker is there yet; the runs wait for one", tone="quiet")
        elif count != before and not self._table:
            self._screen.line(f"{count} {'worker is' if count == 1 else 'workers are'} there", tone="quiet")

    def run_begun(self, run: SweepRun, tries: int) -> None:
        self._running[run.identity] = _Running(run)
        if tries > 1:
            self._screen.warn(f"{run.title} is begun again: its worker was gone ({tries - 1} of 3 times).")

    def run_went_on(self, run: SweepRun, epoch: int, epochs: int, best: float) -> None:
        if running := self._running.get(run.identity):
            running.epoch, running.best = f"{epoch}/{epochs}", best

    def run_done(self, run: SweepRun, record: Record) -> None:
        self._done += 1
        self._estimates.add_record(record)
        self._over(run)
        if not self._table:
            score = percent(record.test.weighted_f1 if record.test else None)
            assert record.cost is not None  # every run has it
            took = duration_text(record.cost.wall_seconds)
            self._screen.line(f"{self._head()} {run.title}: test weighted F1 {score}, {took}{self._to_go()}")

    def run_failed(self, run: SweepRun, reason: str) -> None:
        self._failed += 1
        self._over(run)
        self._screen.warn(f"{run.title} failed: {reason}")

    def training_here(self, can_be_saved: bool) -> None:
        self._signals.is_worth_waiting = can_be_saved

    def noticed(self, run: SweepRun, text: str) -> None:
        self._screen.warn(f"{run.title}: {text}")

    def stop_wanted(self) -> str:
        return self._signals.wanted

    def connection_lost(self, reason: str) -> None:
        self._running.clear()
        if not self._is_lost:
            self._screen.warn(f"the scheduler is gone ({reason.rstrip('.')}); waiting for it, what is done is saved.")
        self._is_lost = True

    def connection_back(self) -> None:
        self._is_lost = False
        self._screen.line(f"the scheduler is back; {len(self._left)} runs were given to it")

    def waited(self) -> None:
        if self._table and time.monotonic() - self._drawn >= DRAW_SECONDS:
            self._draw()

    def _over(self, run: SweepRun) -> None:
        self._left.pop(run.identity, None)
        self._running.pop(run.identity, None)

    def _head(self) -> str:
        return f"{self._done + self._failed}/{self._total}"

    def _to_go(self) -> str:
        told = self._time_left()
        return f", {told} to go" if told and self._left else ""

    def _time_left(self) -> str:
        """From runs like those that are left; of those that nothing is known of, it says so."""
        if not self._left:
            return duration_text(0)
        known: list[float] = []
        missing = 0
        now = time.monotonic()
        for identity in [*self._running, *(each for each in self._left if each not in self._running)]:
            seconds = self._estimates.seconds(self._left[identity].plan) if identity in self._left else 0.0
            if seconds is None:
                missing += 1
            elif identity in self._running:
                known.append(max(0.0, seconds - (now - self._running[identity].since)))
            else:
                known.append(seconds)
        if not known:
            return ""
        return f"{'more than ' if missing else ''}{duration_text(time_to_go(known, self._workers))}"

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if self._table is None:
            return
        counts = [
            ("done", str(self._done)),
            ("running", str(len(self._running))),
            ("failed", str(self._failed)),
            ("left", str(len(self._left) - len(self._running))),
            ("to go", self._time_left() or "not known"),
            ("workers", str(self._workers) if self._workers else "-"),
        ]
        now = time.monotonic()
        rows = [
            [each.run.title, each.epoch or "-", percent(each.best), duration_text(now - each.since)]
            for each in self._running.values()
        ]
        self._table.show(counts, COLUMNS, rows)

    def _end_table(self) -> None:
        if self._table:
            self._table.__exit__(None, None, None)
            self._table = None
