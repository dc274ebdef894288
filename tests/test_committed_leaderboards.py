"""The leaderboards in the repository are those of its records, to the byte: whoever adds a record builds them again."""

from __future__ import annotations

from pathlib import Path

from mer_bench.leaderboard.building import build_boards
from mer_bench.leaderboard.gathering import gather, processes_here
from mer_bench.leaderboard.writing import files_of

ROOT = Path(__file__).resolve().parents[1] / "leaderboards"
COMMAND = "mer-bench leaderboard build --out leaderboards/reports"


def test_they_are_what_the_records_give() -> None:
    expected = {place: text.encode() for place, text in files_of(build_boards(gather([ROOT / "records"]))).items()}
    there = {str(file.relative_to(ROOT / "reports")): file for file in (ROOT / "reports").rglob("*") if file.is_file()}
    assert sorted(there) == sorted(expected), f"a page is missing or too many; run: {COMMAND}"
    stale = [place for place, content in expected.items() if there[place].read_bytes() != content]
    assert stale == [], f"stale; run: {COMMAND}"


def test_no_page_is_large() -> None:
    sizes = {file.name: file.stat().st_size for file in (ROOT / "reports").rglob("*") if file.is_file()}
    assert max(sizes.values()) < 1_000_000


def test_every_record_is_in_a_row() -> None:
    entries = gather([ROOT / "records"], processes_here())
    tables = build_boards(entries, lambda outline: outline.key.dataset == "emorynlp").tables
    runs = {run.run for table in tables for row in table.rows for run in row.runs}
    assert runs == {entry.run for entry in entries if entry.key.dataset == "emorynlp"}
