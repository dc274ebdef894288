"""Records and their predictions on disk → entries: what a leaderboard needs of each run, and nothing heavier.

What is found is independent of where it lies: entries come in the order of their runs' identities, so that the same
records give the same leaderboards from any folder, on any machine.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mer_bench.errors import RecordError, RequestError, RunError
from mer_bench.leaderboard.table import Key
from mer_bench.metrics import METRICS, count_dialogues, score
from mer_bench.predictions import Decoder, DialogueCounts, Predictions
from mer_bench.records import Condition, Record, Scores, read_record

RECORDS = Path("leaderboards/records")
"""Where the records of a repository lie, relative to the working directory."""

FEWEST_FOR_PROCESSES = 400
"""Records; fewer are read sooner than further processes have started."""

_CHUNK = 50  # records at a time for a process
_TOLERANCE = 1e-9  # what another machine's arithmetic may differ by; a change by hand is larger
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")
_MODALITIES = ("text", "audio", "visual")


@dataclass(frozen=True)
class Split:
    """What the entries of one test split share, so that it is kept once.

    Attributes:
        dialogues: Their ids; those with a label alone.
        labelled: (dialogues, classes), labelled utterances of each class.
    """

    classes: tuple[str, ...]
    dialogues: tuple[str, ...]
    labelled: NDArray[np.int64]
    digest: str


@dataclass(frozen=True)
class Entry:
    """One record as a leaderboard reads it.

    Attributes:
        origin: The file, as found; for messages alone, never for a page.
        key: Of the table that it belongs to. condition: None: the complete test split.
        sameness: SHA-256 of all that decides the result but the seed: runs that share it are one experiment. It
            does not look at the test condition.
        overrides: Settings that the request named. stack: As that of the record.
        external: Predictions of another system, whose selection rule is
            what their submitter states.
        test, dev: None for a failed run; `dev` also where an external system says nothing of it.
        curve, audit, best_on_test, epoch: As those of `table.Run`.
        confusion: (dialogues, classes, classes) of the split, in the smallest type that holds it; None for a failed
            run.
        failure: Why it failed; "" for a run that is done.
    """

    origin: str
    digest: str
    run: str
    identity: str
    sameness: str
    key: Key
    condition: Condition | None
    model: str
    model_version: int | None
    code: str
    seed: int
    settings: dict[str, Any]
    overrides: dict[str, Any]
    tuned_trials: int | None
    stack: tuple[int, ...]
    external: bool
    selection_rule: str
    failure: str
    test: Scores | None
    dev: float | None
    epoch: int | None
    curve: tuple[tuple[int, float | None, float | None], ...]
    audit: tuple[tuple[int, float], ...]
    best_on_test: float | None
    chosen_on_dev: float | None
    parameters: int | None
    seconds: float | None
    memory_bytes: int | None
    device: str | None
    threads: int | None
    split: Split | None
    confusion: NDArray[np.unsignedinteger[Any]] | None

    def counts(self) -> DialogueCounts:
        """What was predicted, summed up by dialogue; of a run that is done.

        Emotion shifts and calibration are in `test` and left out here: the statistics need neither.
        """
        assert self.split is not None
        assert self.confusion is not None
        return DialogueCounts(
            classes=self.split.classes,
            dialogues=self.split.dialogues,
            confusion=self.confusion.astype(np.int32),
            shift=np.zeros((len(self.split.dialogues), 2), np.int32),
            calibration=None,
        )


def gather(
    paths: Sequence[Path] = (RECORDS,), processes: int = 1, told: Callable[[int, int], None] = lambda done, total: None
) -> list[Entry]:
    """Read every record at or below the paths, with its predictions, in the order of the runs' identities.

    A copy of a record counts once. Where a run failed and the same run was done elsewhere, the latter counts.

    Args:
        paths: Records, and folders that hold them. Hidden files and folders (unfinished work) are passed over.
        processes: At most so many; a program that asks for more than one is run again by each of them, so that its
            main part should stand behind `if __name__ == "__main__"`.
        told: Hears how many records were read, of how many.

    Raises:
        RequestError: If a path is not there, or there is no record at all.
        RecordError: If a record or its predictions are damaged, do not belong together, or two different records
            are of one run; names the file.
    """
    files = find_records(paths)
    found: list[Entry] = []
    splits: dict[str, Split] = {}
    for entries in in_processes(_read_chunk, _chunks(files), processes, len(files)):
        for entry in entries:
            if entry.split is not None:  # each chunk has its own; one is enough
                object.__setattr__(entry, "split", splits.setdefault(entry.split.digest, entry.split))
        found += entries
        told(len(found), len(files))
    return _without_copies(found)


def processes_here() -> int:
    """How many processes read records quickest: one a core, and no more than eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


def find_records(paths: Sequence[Path]) -> list[Path]:
    """The files of all records at or below the paths, each once, in a fixed order.

    Raises:
        RequestError: If a path is not there or is no record, or there is none at all.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            files: Iterable[Path] = _below(path)
        elif not path.exists():
            raise RequestError(f"there are no records at {path}: no such file or folder.")
        elif path.suffix == ".json":
            files = [path]
        else:
            raise RequestError(f"{path} is no record: those end in .json, and their predictions are found beside them.")
        for file in files:
            found.setdefault(file.resolve(), file)
    if not found:
        where = " or ".join(map(str, paths))
        raise RequestError(f"there are no records in {where}. A run writes one: mer-bench run --out {paths[0]}")
    return [found[place] for place in sorted(found)]


def _below(folder: Path) -> list[Path]:
    files = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(place, name) for name in names if name.endswith(".json") and not name.startswith(".")]
    return files


class Reader:
    """Reads records one after the other, and each test split once."""

    def __init__(self) -> None:
        self._splits: dict[str, Split] = {}
        self._decoder = Decoder()

    def read(self, files: Sequence[Path]) -> list[Entry]:
        """The entries of some records.

        Raises:
            RecordError: As `gather`.
        """
        return [self.entry(file) for file in files]

    def entry(self, file: Path) -> Entry:
        """The entry of one record."""
        record = read_record(file)
        outcomes = self._outcomes(file, record)
        split, confusion = (None, None) if outcomes is None else self._reduced(outcomes)
        return _entry(file, record, split, confusion)

    def _outcomes(self, file: Path, record: Record) -> DialogueCounts | None:
        if record.predictions is None or record.test is None:
            return None
        beside = file.with_name(record.predictions.file)
        try:
            content = beside.read_bytes()
        except OSError as error:
            raise RecordError(f"{beside}, which {file.name} names, cannot be read: {error.strerror}.") from None
        checksum = hashlib.sha256(content).hexdigest()
        if checksum != record.predictions.sha256:
            raise RecordError(
                f"{beside} is not the file that {file.name} was written with: its SHA-256 is "
                f"{checksum[:12]}..., and the record says {record.predictions.sha256[:12]}..."
            )
        try:
            outcomes = self._decoder.decode(content)
            counts = count_dialogues(outcomes) if isinstance(outcomes, Predictions) else outcomes
            computed = score(counts)
        except RecordError as error:
            raise RecordError(f"{beside} is not a valid predictions file: {str(error).rstrip('.')}.") from None
        different = _first_difference(record.test, computed)
        if different:
            raise RecordError(
                f"{file} says test.{different}, but {beside.name} gives something else. One of the two was changed "
                "after the run."
            )
        return counts

    def _reduced(self, counts: DialogueCounts) -> tuple[Split, NDArray[np.unsignedinteger[Any]]]:
        """The split, and the confusion of its labelled dialogues in the order of their ids."""
        order = sorted(
            np.flatnonzero(counts.confusion.any(axis=(1, 2))).tolist(), key=lambda row: counts.dialogues[row]
        )
        confusion = counts.confusion[order]
        split = _split(counts.classes, tuple(counts.dialogues[row] for row in order), confusion.sum(axis=2))
        smallest = np.min_scalar_type(int(confusion.max(initial=0)))
        return self._splits.setdefault(split.digest, split), confusion.astype(smallest)


def _first_difference(told: Scores, computed: Scores) -> str:
    """What of the record's scores its predictions do not give, as text; "" where there is nothing."""
    if list(told.classes) != list(computed.classes) or told.confusion != computed.confusion:
        return "confusion is another"
    for name in METRICS:
        value, found = getattr(told, name), getattr(computed, name)
        if (value is None) != (found is None) or (value is not None and abs(value - found) > _TOLERANCE):
            return f"{name} is {value}"
    for name, scores in told.classes.items():
        for part in ("precision", "recall", "f1"):
            value = getattr(scores, part)
            if abs(value - getattr(computed.classes[name], part)) > _TOLERANCE:
                return f"classes.{name}.{part} is {value}"
    return ""


def _split(classes: tuple[str, ...], dialogues: tuple[str, ...], labelled: NDArray[np.int64]) -> Split:
    told = hashlib.sha256(repr((classes, dialogues)).encode())
    told.update(np.ascontiguousarray(labelled, "<i8").tobytes())
    return Split(classes, dialogues, labelled, told.hexdigest())


def _entry(
    file: Path, record: Record, split: Split | None, confusion: NDArray[np.unsignedinteger[Any]] | None
) -> Entry:
    chosen = record.folds[0] if record.folds else record
    selection = chosen.selection
    metric = selection.metric if selection else "weighted_f1"
    external, audit = record.external, record.audit
    failure = record.failure
    return Entry(
        origin=str(file),
        digest=hashlib.sha256(file.read_bytes()).hexdigest(),
        run=record.run,
        identity=record.identity,
        sameness=_sameness(record),
        key=key_of(record),
        condition=record.test_condition,
        model=record.model,
        model_version=record.model_version,
        code="" if record.model_code is None else record.model_code.sha256,
        seed=record.seed,
        settings={**record.training, **record.settings},
        overrides=record.options.get("settings") or {},
        tuned_trials=None if record.tuned is None else record.tuned.trials,
        stack=tuple(record.stack),
        external=external is not None,
        selection_rule=selection.rule if selection else external.selection_rule if external else "",
        failure="" if failure is None else f"{failure.kind}: {failure.reason}",
        test=record.test,
        dev=None if record.dev is None else record.dev.weighted_f1,
        epoch=None if record.selection is None else record.selection.epoch,
        curve=tuple((point.epoch, point.train.get("total"), point.dev.get(metric)) for point in chosen.curve),
        audit=() if audit is None else tuple((point.epoch, point.test[audit.metric]) for point in audit.epochs),
        best_on_test=None if audit is None else audit.best,
        chosen_on_dev=None if audit is None else audit.chosen,
        **_cost(record),
        split=split,
        confusion=confusion,
    )


def _cost(record: Record) -> dict[str, Any]:
    """What it took; an external system may not say."""
    cost, machine = record.cost, record.machine
    return {
        "parameters": cost.parameters if cost else None,
        "seconds": cost.wall_seconds if cost else None,
        "memory_bytes": cost.memory_bytes if cost else None,
        "device": machine.device if machine else None,
        "threads": machine.threads if machine else None,
    }


def key_of(record: Record) -> Key:
    """The table that a record belongs to. In which order the model got its modalities makes no other table."""
    known = [name for name in _MODALITIES if name in record.modalities]
    return Key(
        dataset=record.dataset,
        labels=record.labels,
        features=record.features,
        protocol=record.protocol,
        protocol_version=record.protocol_version,
        modalities=(*known, *sorted(name for name in record.modalities if name not in _MODALITIES)),
        condition=record.test_condition.name if record.test_condition else None,
        sources=record.sources,
        synthetic=record.synthetic,
    )


def _sameness(record: Record) -> str:
    code = None if record.model_code is None else record.model_code.sha256
    stated = record.external.selection_rule if record.external else ""
    settings = (_plain(record.settings), _plain(record.training))
    decides: tuple[Any, ...] = (record.model, record.model_version, code, record.kind, stated, settings)
    if record.stack:  # a row of its own: seeds that were trained together share more than settings
        decides = (*decides, tuple(record.stack))
    return hashlib.sha256(repr(decides).encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    """A form whose text depends on the values alone; 1 and 1.0 are the same setting."""
    if isinstance(value, dict):
        return sorted((name, _plain(part)) for name, part in value.items())
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _chunks(files: Sequence[Path]) -> list[Sequence[Path]]:
    return [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]


def in_processes(
    work: Callable[[_Given], _Made], given: Sequence[_Given], processes: int, size: int
) -> Iterator[_Made]:
    """What a function makes of each of several things, in their order.

    Args:
        processes: At most so many do it, and this one alone where there is too little to do.
        size: Records that it is about.

    Raises:
        RunError: If one of the processes is ended from outside.
    """
    if processes == 1 or len(given) < 2 or size < FEWEST_FOR_PROCESSES:
        yield from map(work, given)
        return
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_begin)
    try:
        yield from pool.map(work, given)
    except BrokenProcessPool:
        raise RunError("a process that worked on the records was ended, perhaps for want of memory.") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Ctrl-C is the main process's to answer, and a core is one process's: products in threads would wait in turns."""
    import signal

    import numpy as np  # noqa: F401 — its library of products must be there to be told
    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(limits=1, user_api="blas")


def _read_chunk(files: Sequence[Path]) -> list[Entry]:
    return Reader().read(files)


def _without_copies(found: Sequence[Entry]) -> list[Entry]:
    kept: dict[str, Entry] = {}
    for entry in sorted(found, key=lambda entry: (bool(entry.failure), entry.digest, entry.origin)):
        other = kept.setdefault(entry.identity, entry)
        if other.digest != entry.digest and not entry.failure:
            first, second = sorted((other.origin, entry.origin))
            raise RecordError(
                f"{first} and {second} are two different records of one run ({entry.identity[:12]}...). Keep one of "
                "them."
            )
    return [kept[identity] for identity in sorted(kept)]
