"""Figures that others published, as data beside this code: shown apart, never ranked with measured rows.

<dataset>.csv   one figure a line; empty value: unknown, and shown so
sources.toml    where each was printed, by the key that the column `source` holds
code.toml       on which split public training code selects the epoch that it reports
"""

from mer_bench.leaderboard.published.reading import published_for, read_published

__all__ = ["published_for", "read_published"]
