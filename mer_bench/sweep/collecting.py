"""What came of each run, checked and in its place: the last word on a sweep, wherever the work was done."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from mer_bench.atomic import write_atomically
from mer_bench.errors import RecordError
from mer_bench.records import Record, predictions_file, private_file
from mer_bench.sweep.listening import SweepListener
from mer_bench.sweep.performing import Outcome
from mer_bench.sweep.runs import Sweep, SweepRun

SEEN_WITHIN_SECONDS = 10.0
"""How long a file that a worker wrote may take to be seen here, over a network file system."""


@dataclass
class Collected:
    """What has come of a sweep so far.

    Attributes:
        done: Records of this sweep's runs, by identity. failed: Why others have none.
    """

    sweep: Sweep
    listener: SweepListener
    done: dict[str, Record] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> dict[str, SweepRun]:
        """The runs of which nothing has come yet, by identity."""
        return {
            run.identity: run
            for run in self.sweep.left
            if run.identity not in self.done and run.identity not in self.failed
        }

    def take(self, outcome: Outcome) -> bool:
        """Take what came of a run; False where it does not hold, and the run must be run again.

        Raises:
            StorageError: If the files that came back cannot be written.
        """
        run = self.sweep.runs[outcome.identity]
        if outcome.identity in self.done or outcome.identity in self.failed:
            return True
        if outcome.files is not None:
            store_files(run, outcome.files)
        if outcome.status in ("failed", "unfit"):
            self.fail(run, outcome.reason)
            return True
        return self.look(run, SEEN_WITHIN_SECONDS)

    def look(self, run: SweepRun, seconds: float = 0.0) -> bool:
        """Take the record of a run if it is there, whole and its own."""
        until = time.monotonic() + seconds
        while True:
            try:
                record = run.recording.found()
            except RecordError:
                record = None  # two who took each other for lost wrote at the same moment
            if record is not None:
                self.done[run.identity] = record
                self.listener.run_done(run, record)
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.2)

    def look_for_all(self) -> None:
        """Take every record that is there by now: a worker may have written one that nobody has heard of yet."""
        for run in self.left.values():
            self.look(run)

    def fail(self, run: SweepRun, reason: str) -> None:
        """Count a run as failed."""
        self.failed[run.identity] = reason
        self.listener.run_failed(run, reason)


def store_files(run: SweepRun, files: dict[str, bytes]) -> None:
    """Write the files of a run that was done elsewhere, the record last.

    Names are those that this run must have; a file of any other name is not written.

    Raises:
        StorageError: If they cannot be written.
    """
    recording = run.recording
    folder, name = recording.folder, recording.name
    recording.prepare()
    if recording.file.name in files and predictions_file(folder, name).name in files:
        recording.file.unlink(missing_ok=True)  # an older record never stands beside other predictions
    elif recording.file.is_file():
        return  # a failed repeat never replaces a result
    for place in (private_file(folder, name), predictions_file(folder, name), recording.weights, recording.file):
        if place.name in files:
            write_atomically(place, files[place.name])
