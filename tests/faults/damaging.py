"""Records, saved states and stores with flipped bits, missing ends and contents swapped: noticed, or harmless."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mer_bench import registry
from mer_bench.errors import MerBenchError
from mer_bench.identity import identity_of
from mer_bench.metrics import rescore
from mer_bench.records import Record, read_record
from mer_bench.runner import RunRequest
from tests.faults.workshop import Counts, differences, here, record_of, request_of, saving_every_epoch

KINDS = ("record", "state", "store")


def damage_files(folder: Path, count: int, seed: int, say: Callable[[str], object] = lambda _: None) -> Counts:
    """Damage so many files, one at a time, and use what they belong to.

    Args:
        folder: Empty; the shelf of `tests.faults.shelf` must be on the path of this process.
    """
    drawn = random.Random(seed)
    counts = Counts()
    bench = _Bench(folder)
    for number in range(count):
        kind = KINDS[number % 3]
        case = bench.cases[number // 3 % len(bench.cases)]
        place = folder / "damaged"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree({"record": case.whole, "state": case.cut, "store": bench.data}[kind], place)
        files = sorted(file for file in place.rglob("*") if file.is_file() and _counts(kind, file, case))
        what = f"{number}, {kind}, {_damage(files, drawn)}"
        counts.faults += 1
        try:
            fault = {"record": _read, "state": _go_on, "store": _train}[kind](place, case, bench.data)
        except MerBenchError:
            counts.noticed += 1
            continue
        if fault is None:
            counts.harmless += 1
        elif fault == "":
            counts.noticed += 1
        else:
            counts.changed += 1
            counts.why.append(f"{what}: {fault}")
        if number % 10 == 9:
            say(f"{number + 1} of {count}: {counts.bad} lost, doubled or changed")
    return counts


class _Case:
    """A run with its undisturbed result, and the working folder of the same run after it was stopped."""

    def __init__(self, request: RunRequest, folder: Path, stop_after: int) -> None:
        from mer_bench import runner

        self.request = request
        self.whole, self.cut = folder / "whole", folder / "cut"
        self.truth, _ = here(replace(request, out=self.whole))

        class Stopping(runner.Listener):
            epochs = 0

            def epoch_ended(self, *_: object) -> None:
                Stopping.epochs += 1

            def stop_wanted(self) -> str:
                return "the test" if Stopping.epochs >= stop_after else ""

        with pytest.raises(MerBenchError, match="stopped by the test"):
            runner.run(replace(request, out=self.cut), Stopping())


class _Bench:
    def __init__(self, folder: Path) -> None:
        with saving_every_epoch():
            self.data = folder / "data"
            self.cases = [
                _Case(request_of(self.data, folder, number), folder / f"case{number}", stop)
                for number, stop in ((0, 3), (2, 6))
            ]


def _counts(kind: str, file: Path, case: _Case) -> bool:
    if kind == "store":
        halves = "halves" in file.parts
        return halves == (case.request.protocol == "halves") and file.parent.name in ("official", "fold1", "fold2")
    # The labels of the weights have their own checksum nowhere: they are not what a table is made of.
    return kind != "record" or not file.name.endswith(".safetensors")


def _damage(files: list[Path], drawn: random.Random) -> str:
    """Change one file, or two; what was done, in words."""
    file = drawn.choice(files)
    content = file.read_bytes()
    others = [each for each in files if each.suffix == file.suffix and each.read_bytes() != content]
    way = drawn.choice(["flip", "flip", "truncate", "swap"])
    if way == "swap" and others:
        other = drawn.choice(others)
        file.write_bytes(other.read_bytes())
        other.write_bytes(content)
        return f"{file.name} and {other.name} swapped"
    if way == "truncate":
        length = drawn.randrange(len(content)) if content else 0
        file.write_bytes(content[:length])
        return f"{file.name} cut to {length} bytes"
    place = drawn.randrange(len(content))
    file.write_bytes(content[:place] + bytes([content[place] ^ 1 << drawn.randrange(8)]) + content[place + 1 :])
    return f"{file.name} with a bit of byte {place} flipped"


def _read(place: Path, case: _Case, _: Path) -> str | None:
    """Read a damaged record as a leaderboard does: "" where it was noticed, None where nothing that counts differs."""
    (file,) = place.rglob("*.json")
    record = read_record(file)
    card = registry.datasets().find("trios").card
    if rescore(file) != record.test or identity_of(record, card.version, record.test_condition) != record.identity:
        return ""
    if record.run != file.stem or record.identity[:12] not in record.run:
        return ""
    return None if _told(record) == _told(case.truth) else "the record says something else and nobody notices"


def _told(record: Record) -> object:
    """What tables are made of, and what is compared."""
    names = ("run", "identity", "status", "test", "settings", "training", "seed", "modalities", "predictions")
    return [getattr(record, name) for name in names]


def _go_on(place: Path, case: _Case, data: Path) -> str | None:
    with saving_every_epoch():
        record, noticed = here(replace(case.request, out=place))
    return _compare(place, record, case) or ("" if noticed else None)


def _train(place: Path, case: _Case, _: Path) -> str | None:
    out = place / "runs"
    record, _told_of = here(replace(case.request, data_root=place, out=out))
    return _compare(out, record, case)


def _compare(out: Path, record: Record, case: _Case) -> str | None:
    counts = Counts()
    if record_of(out, counts, "it") is None or counts.bad:
        return str(counts)
    return ", ".join(differences(case.truth, case.whole, record, out)) or None
