"""Tables → files: every format of every leaderboard, and the index. The same tables give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mer_bench.atomic import storage_errors, write_atomically
from mer_bench.errors import RequestError
from mer_bench.leaderboard.latex import latex_of
from mer_bench.leaderboard.markdown import index_of, markdown_of
from mer_bench.leaderboard.page import index_of as html_index_of
from mer_bench.leaderboard.page import page_of
from mer_bench.leaderboard.spreadsheet import csv_of
from mer_bench.leaderboard.table import Boards, Table

_WIDEST = 110


def json_of(table: Table) -> str:
    """A leaderboard as JSON; `Table.model_validate_json` reads it back."""
    return json_text(table.model_dump(mode="json"))


FORMATS: Mapping[str, Callable[[Table], str]] = {
    "md": markdown_of,
    "csv": csv_of,
    "json": json_of,
    "tex": latex_of,
}
"""What is written of each leaderboard beside its page, by the ending of the file; `index.md` links to the first."""


def files_of(boards: Boards) -> dict[str, str]:
    """Every file by its place below the output folder: `<dataset>/<name>.<ending>`, and `index.<ending>`."""
    files = {
        f"{place_of(table)}.{ending}": write(table) for table in boards.tables for ending, write in FORMATS.items()
    }
    files |= {f"{place_of(table)}.html": page_of(table, boards.tables) for table in boards.tables}
    files["index.html"] = html_index_of(boards)
    files["index.md"] = index_of(boards, (*FORMATS, "html"))
    return files


def place_of(table: Table) -> str:
    """Where the files of a leaderboard are below the output folder, without their ending."""
    return f"{table.key.dataset}/{table.name}"


def write_boards(boards: Boards, out: Path) -> tuple[list[Path], list[Path]]:
    """Write every file, each as a whole or not at all, and remove those of leaderboards that are no more.

    Returns:
        The files that are there now, and those that were removed. Nothing else in the folder is touched.

    Raises:
        StorageError: If a file cannot be written.
        RequestError: If something that is no leaderboard is in the place of one.
    """
    files = {out / place: text.encode("utf-8") for place, text in files_of(boards).items()}
    with storage_errors(f"write leaderboards to {out}"):
        for file, content in files.items():
            if file.is_dir():
                raise RequestError(f"{file} cannot be written: a folder of that name is in the way.")
            if not file.is_file() or file.read_bytes() != content:
                write_atomically(file, content)
        gone = [file for file in _written_before(out) if file not in files]
        for file in gone:
            file.unlink()
    return list(files), gone


def _written_before(out: Path) -> list[Path]:
    """Files of leaderboards below a folder: those beside a `.json` that is one, under the name that it has there."""
    found = []
    for file in sorted(out.glob("*/*.json")):
        try:
            table = Table.model_validate_json(file.read_bytes())
        except (ValidationError, OSError):
            continue
        if out / f"{place_of(table)}.json" == file:
            found += [
                other for ending in ("html", *FORMATS) if (other := out / f"{place_of(table)}.{ending}").is_file()
            ]
    return found


def json_text(value: Any) -> str:
    """JSON in which every row, test and figure is a line, so that two versions can be compared line by line."""
    return _laid_out(value, "") + "\n"


def _laid_out(value: Any, indent: str) -> str:
    nested = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(part, dict) for part in value))
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not nested or not value or len(indent) >= 4 or len(indent) + len(line) <= _WIDEST:
        return line
    deeper = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(name, ensure_ascii=False)}: {_laid_out(part, deeper)}" for name, part in value.items()]
    else:
        parts = [_laid_out(part, deeper) for part in value]
    opened, closed = "{}" if isinstance(value, dict) else "[]"
    return f"{opened}\n" + ",\n".join(deeper + part for part in parts) + f"\n{indent}{closed}"
