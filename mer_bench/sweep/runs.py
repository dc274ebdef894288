"""The runs of a sweep with their identities, and those of them that are recorded already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mer_bench.data.preparation import open_or_prepare, open_prepared
from mer_bench.data.store import Store
from mer_bench.errors import RecordError
from mer_bench.locations import StoreKey, data_root
from mer_bench.recording import Recording
from mer_bench.records import Record, read_record
from mer_bench.request import Plan
from mer_bench.sweep.planning import Planned, SweepRequest


@dataclass(frozen=True)
class SweepRun:
    """A run of which it is known what decides its result."""

    plan: Plan
    recording: Recording

    @property
    def identity(self) -> str:
        """SHA-256 of everything that decides its result."""
        return self.recording.identity

    @property
    def title(self) -> str:
        """Which run it is, in a few words: `cmath on meld/transcripts, text + audio, seed 3`."""
        plan = self.plan
        return f"{plan.model} on {plan.features}, {' + '.join(plan.modalities)}, seed {plan.request.seed}"


@dataclass(frozen=True)
class Sweep:
    """All the runs of a request, and what is known of them before any of them is begun.

    Attributes:
        runs: Each once, by identity.
        found: Records that are there and done, by identity.
        set_aside: Records of failed runs that are left alone, by identity.
        unknown: Plans whose data are not prepared, so that it cannot be told whether they are recorded.
        impossible: Why combinations were left out.
        damaged: What is wrong with records that are there and not whole; their runs are run again.
    """

    request: SweepRequest
    runs: dict[str, SweepRun]
    found: dict[str, Record]
    set_aside: dict[str, Record] = field(default_factory=dict)
    unknown: tuple[Plan, ...] = ()
    impossible: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def left(self) -> list[SweepRun]:
        """The runs that are to be run."""
        over = self.found.keys() | self.set_aside.keys()
        return [run for identity, run in self.runs.items() if identity not in over]


def survey(
    request: SweepRequest, planned: Planned, on_prepare: Callable[[str], None] | None = None, dry: bool = False
) -> Sweep:
    """Open the stores of all runs, each once, and look for the records that are there.

    Data are prepared here, before any worker asks for them.

    Args:
        on_prepare: Told one line when a preparation begins.
        dry: Prepare nothing.

    Raises:
        MissingDataError, DataError: If data are missing or damaged; nothing was run then.
    """
    root = data_root(request.run.data_root)
    stores: dict[StoreKey, Store | None] = {}
    runs: dict[str, SweepRun] = {}
    unknown: list[Plan] = []
    for plan in planned.plans:
        for key in plan.stores:
            if key not in stores:
                stores[key] = open_prepared(key, root) if dry else open_or_prepare(key, root, on_prepare)
        opened = [store for key in plan.stores if (store := stores[key]) is not None]
        if len(opened) < len(plan.stores):
            unknown.append(plan)
            continue
        recording = Recording(plan, opened)
        runs.setdefault(recording.identity, SweepRun(plan, recording))
    found, set_aside, damaged = _recorded(list(runs.values()), request.skip_failed)
    return Sweep(request, runs, found, set_aside, tuple(unknown), planned.impossible, damaged)


def _recorded(
    runs: Sequence[SweepRun], skip_failed: bool
) -> tuple[dict[str, Record], dict[str, Record], tuple[str, ...]]:
    found: dict[str, Record] = {}
    set_aside: dict[str, Record] = {}
    damaged: list[str] = []
    there = {folder: _names(folder) for folder in {run.recording.folder for run in runs}}
    for run in runs:
        recording = run.recording
        if recording.file.name not in there[recording.folder]:  # asked once a folder, not once a run
            continue
        try:
            record = recording.found()
            if record is not None:
                found[run.identity] = record
            elif skip_failed and (failed := read_record(recording.file)).status == "failed":
                set_aside[run.identity] = failed
        except RecordError as error:
            damaged.append(str(error))
    return found, set_aside, tuple(damaged)


def _names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()} if folder.is_dir() else set()
