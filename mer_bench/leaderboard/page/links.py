"""Where the pages and files of leaderboards lie, seen from each other."""

from __future__ import annotations

from urllib.parse import quote

from mer_bench.leaderboard.table import Table

FORMATS = ("md", "csv", "json", "tex")
"""Files of the same table beside its page."""


def address_of(table: Table, suffix: str = "html") -> str:
    """A table's file, seen from the folder of the index."""
    return f"{quote(table.key.dataset, safe='')}/{quote(table.name, safe='')}.{suffix}"


def address_beside(table: Table, suffix: str = "html") -> str:
    """A table's file, seen from another file of the same dataset."""
    return f"{quote(table.name, safe='')}.{suffix}"
