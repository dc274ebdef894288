"""Records of every version before: read with the same scores, written again byte for byte.

What is promised: a record of a released version is valid in every later one. See tests/fixtures/README.md.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from mer_bench.leaderboard.building import build_boards
from mer_bench.leaderboard.gathering import gather
from mer_bench.metrics import rescore
from mer_bench.predictions import DialogueCounts, Predictions, read_outcomes, write_predictions
from mer_bench.records import Record, predictions_file, read_record, write_record

ROOT = Path(__file__).parent / "fixtures"
VERSIONS = {"records-0.1.0": "9ab1f580ae170761d332a75498200ee3066c1a784cb024f3032edd7d68cad7d4"}
"""By folder, SHA-256 over its files: a record of a released version is history, which nobody writes again."""

KINDS = [kind for version in VERSIONS for kind in sorted((ROOT / version).iterdir())]
RECORDS = sorted(ROOT.rglob("*.json"))
DONE = [file for file in RECORDS if json.loads(file.read_text())["status"] == "done"]


def digest(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.relative_to(folder).as_posix()}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def named(file: Path) -> str:
    return f"{file.relative_to(ROOT).parts[1]}-{file.stem}"


def test_nobody_wrote_history_again() -> None:
    assert {folder.name: digest(folder) for folder in sorted(ROOT.iterdir()) if folder.is_dir()} == VERSIONS


@pytest.mark.parametrize("file", RECORDS, ids=named)
def test_a_record_is_read_and_written_again_byte_for_byte(file: Path, tmp_path: Path) -> None:
    record = read_record(file)
    write_record(tmp_path / "again.json", record)
    assert (tmp_path / "again.json").read_bytes() == file.read_bytes()
    assert record.version == file.relative_to(ROOT).parts[0].removeprefix("records-")


@pytest.mark.parametrize("file", DONE, ids=named)
def test_its_predictions_have_the_scores_that_were_written(file: Path) -> None:
    written = json.loads(file.read_text())["test"]
    computed = rescore(file).model_dump(mode="json")
    for metric in ("weighted_f1", "accuracy", "macro_f1", "uar", "emotion_shift_accuracy", "calibration_error"):
        assert computed[metric] == written[metric], metric
    assert computed["confusion"] == written["confusion"]


@pytest.mark.parametrize("file", DONE, ids=named)
def test_its_predictions_are_written_again_as_they_were(file: Path, tmp_path: Path) -> None:
    record = read_record(file)
    old = predictions_file(file.parent, record.run)
    assert record.predictions is not None
    assert hashlib.sha256(old.read_bytes()).hexdigest() == record.predictions.sha256
    write_predictions(tmp_path / "again.npz", read_outcomes(old))
    # How a library packs them is its own affair; what is packed is ours.
    assert unpacked(tmp_path / "again.npz") == unpacked(old)


def unpacked(file: Path) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_leaderboard_is_built_of_it(kind: Path) -> None:
    entries = gather([kind])
    done = [file for file in DONE if file.is_relative_to(kind)]
    assert len(entries) == len(list(kind.rglob("*.json")))
    tables = build_boards(entries).tables
    shown = {run.run for table in tables for row in table.rows for run in row.runs}
    assert shown >= {read_record(file).run for file in done}


def test_both_forms_of_predictions_are_there() -> None:
    forms = {type(read_outcomes(predictions_file(file.parent, read_record(file).run))) for file in DONE}
    assert forms == {Predictions, DialogueCounts}


def fields(kind: Any) -> Iterator[str]:
    """Every field of a record and of its parts, as `Record.dev` or `Audit.best`."""
    for part in [kind, *_parts(kind)]:
        yield from (f"{part.__name__}.{name}" for name in part.model_fields)


def _parts(kind: type[BaseModel]) -> set[type[BaseModel]]:
    found: set[type[BaseModel]] = set()
    waiting: list[Any] = [field.annotation for field in kind.model_fields.values()]
    while waiting:
        each = waiting.pop()
        if isinstance(each, type) and issubclass(each, BaseModel):
            if each not in found:
                found.add(each)
                waiting += [field.annotation for field in each.model_fields.values()]
        else:
            waiting += getattr(each, "__args__", ())
    return found


def held(value: Any) -> Iterator[str]:
    """The fields of a value that hold something."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            part = getattr(value, name)
            if part not in (None, [], {}, "", ()):
                yield f"{type(value).__name__}.{name}"
                yield from held(part)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from held(part)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            yield from held(part)


def test_every_field_of_the_schema_is_held_by_some_record_here() -> None:
    here = {name for file in RECORDS for name in held(read_record(file))}
    assert sorted(set(fields(Record)) - here) == []
