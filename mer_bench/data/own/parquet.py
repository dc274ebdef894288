"""Parquet files through pyarrow, which is an optional part of the installation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mer_bench.errors import DataError, MissingDataError


def read_parquet(file: Path) -> Any:
    """A Parquet file as a `pyarrow.Table`.

    Raises:
        MissingDataError: If pyarrow is not installed, or the file is not there.
        DataError: If it is no Parquet file or damaged.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDataError(
            f"{file.name} is a Parquet file, which needs pyarrow: python -m pip install 'mer-bench[parquet]' ({error})"
        ) from None
    if not file.is_file():
        raise MissingDataError(f"{file} is not there.")
    try:
        # One file: a path alone would be searched for partitions, whose names would become columns.
        with file.open("rb") as stream:
            table = pyarrow.parquet.ParquetFile(stream).read()
            table.validate(full=True)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{file} cannot be read as a Parquet file: {reason}") from None
    names = table.column_names
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{file}: the column {name} occurs twice.")
    return table
