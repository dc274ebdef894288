"""A predictions file with every id and nothing predicted: what a system is to fill in. It holds no true label."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from mer_bench.atomic import write_atomically
from mer_bench.errors import MissingDataError, RequestError
from mer_bench.external.reading import ID, LABEL, SCORES, format_of


def write_blank(file: Path, ids: Sequence[str], classes: Sequence[str], given: str | None = None) -> None:
    """Write the template, in the format that is given or that the file's name says.

    Raises:
        RequestError: If a file of that name is there already, which may have been filled in, or the format cannot be
            told. MissingDataError: If there is no writer for it. StorageError: If it cannot be written.
    """
    kind = format_of(file, given)
    if file.exists():
        raise RequestError(f"{file} is there already, and may have been filled in; name another file, or delete it.")
    writer = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}[kind]
    write_atomically(file, writer(ids, classes))


def _csv(ids: Sequence[str], classes: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([ID, LABEL, *classes])
    rows.writerows([name, "", *("" for _ in classes)] for name in ids)
    return text.getvalue().encode()


def _jsonl(ids: Sequence[str], classes: Sequence[str]) -> bytes:
    blank = {LABEL: None, SCORES: dict.fromkeys(classes)}
    return "".join(json.dumps({ID: name, **blank}, ensure_ascii=False) + "\n" for name in ids).encode()


def _parquet(ids: Sequence[str], classes: Sequence[str]) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDataError(
            f"a Parquet file needs pyarrow: python -m pip install 'mer-bench[parquet]' ({error})"
        ) from None
    fields = [(ID, pyarrow.string()), (LABEL, pyarrow.string()), *((name, pyarrow.float64()) for name in classes)]
    blank = [pyarrow.nulls(len(ids), kind) for _, kind in fields[1:]]
    table = pyarrow.Table.from_arrays([pyarrow.array(ids, pyarrow.string()), *blank], schema=pyarrow.schema(fields))
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()
