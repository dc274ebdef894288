"""What a table means in words: who leads, by how much, and whether it holds; and figures as a page prints them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mer_bench.leaderboard.table import Key, Pair, Row, Table

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NARROW NO-BREAK SPACE}"
SIGNIFICANT = 0.05
MOST_NAMED = 4
"""Rows that a sentence names, before it counts the others."""


def percent(share: float | None, decimals: int = 2) -> str:
    """A fraction in percent, without the sign; a dash where it was not measured."""
    if share is None:
        return DASH
    return f"{100 * share:.{decimals}f}".replace("-", MINUS)


def points(difference: float) -> str:
    """A difference of fractions in percentage points, always with its sign."""
    return f"{100 * difference:+.2f}".replace("-", MINUS)


def probability(value: float) -> str:
    """A p-value: `= 0.031`, or `< 0.001`."""
    return f"<{SPACE}0.001" if value < 0.001 else f"={SPACE}{value:.3f}"


def counted(number: int, one: str, several: str | None = None) -> str:
    """`1 row`, `3 rows`, `10 000 rows`."""
    return f"{grouped(number)} {one if number == 1 else several or one + 's'}"


def grouped(number: float, decimals: int = 0) -> str:
    """A number with narrow spaces between its thousands."""
    return f"{number:,.{decimals}f}".replace(",", SPACE).replace("-", MINUS)


def short(number: int) -> str:
    """A count in three figures: `950`, `88.8 k`, `1.23 M`."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor * 0.9995:
            return f"{number / factor:.3g}{SPACE}{unit}" if number < 999.5 * factor else f"{number / factor:.0f}{unit}"
    return str(number)


def seconds(value: float) -> str:
    """Seconds in a precision that a reader can use: `0.42`, `9.5`, `1 234`."""
    return grouped(value, 2 if value < 1 else 1 if value < 100 else 0)


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def part(full: str) -> str:
    """`emotion` of `meld/emotion`: the part of an id that its dataset does not say."""
    return full.partition("/")[2] or full


def title_of(key: Key) -> str:
    """What a table is about, in one line."""
    condition = f", {key.condition}" if key.condition else ""
    return f"{key.dataset} {part(key.labels)}, {part(key.features)} ({' + '.join(key.modalities)}){condition}"


@dataclass(frozen=True)
class Verdict:
    """What a reader takes away in ten seconds.

    Attributes:
        score: Of the leader, with its interval: `58.24 %`, `95 % interval 57.10 to 59.30`.
        margin, margin_over: How far the second row is behind: `+0.31`, `over mmgcn`; None in a table of one row.
        holds: Whether the lead is more than chance: True, False, or None where nothing was tested.
        meaning: That in three or four words.
        sentences: All of it in full.
    """

    leader: str
    score: str
    interval: str
    margin: str | None
    margin_over: str | None
    holds: bool | None
    meaning: str
    sentences: tuple[str, ...]


def verdict(table: Table) -> Verdict:
    """Who leads a table, by how much, and whether it means anything: from rank groups and tested pairs alone."""
    leader = table.rows[0]
    second = table.rows[1] if len(table.rows) > 1 else None
    same = [row for row in table.rows[1:] if leader.rank is not None and row.rank == leader.rank]
    others = [row for row in table.rows[1:] if row not in same and None not in (row.rank, leader.rank)]
    # A lower rank may begin at a row that only its neighbour was told apart from.
    behind = next((row for row in others if _is_separated(_pair(table, leader, row))), None)
    figure = leader.weighted_f1
    interval = f"{percent(figure.low)} to {percent(figure.high)}" if figure.low is not None else ""
    holds: bool | None
    if second is None:
        holds, meaning, lead = None, "Nothing to compare with", f"{leader.label} is the only row of this table."
    elif leader.rank is None or not (same or others):
        holds, meaning = None, "Not tested"
        lead = f"{leader.label} has the highest weighted F1, but nothing tested whether that is more than chance."
    elif same:
        holds, meaning = False, f"Shares rank {leader.rank} with {counted(len(same), 'row')}"
        lead = (
            f"{leader.label} has the highest weighted F1, but no test separates it from "
            f"{_named(same, leader)}: they share rank {leader.rank}."
        )
    else:
        holds, meaning = True, "More than chance"
        lead = f"{leader.label} leads, and by more than chance{_proof(_pair(table, leader, second))}."
    sentences = [lead]
    if same and behind:
        distance = points(behind.weighted_f1.mean - figure.mean)
        sentences.append(
            f"The first row that is separated from it is {behind.label} ({distance} points"
            f"{_proof(_pair(table, leader, behind), opening=', ', closing='')})."
        )
    elif same:
        sentences.append("No row of this table is separated from the leader.")
    sentences += _caveats(table)
    return Verdict(
        leader=leader.label,
        score=percent(figure.mean),
        interval=interval,
        margin=points(figure.mean - second.weighted_f1.mean) if second else None,
        margin_over=second.label if second else None,
        holds=holds,
        meaning=meaning,
        sentences=tuple(sentences),
    )


def _named(rows: Sequence[Row], leader: Row) -> str:
    told = [f"{row.label} ({points(row.weighted_f1.mean - leader.weighted_f1.mean)})" for row in rows[:MOST_NAMED]]
    if len(rows) > MOST_NAMED:
        told.append(f"{grouped(len(rows) - MOST_NAMED)} more")
    return listed(told)


def _pair(table: Table, first: Row, second: Row) -> Pair | None:
    wanted = {first.label, second.label}
    return next((pair for pair in table.pairs if {pair.first, pair.second} == wanted), None)


def _is_separated(pair: Pair | None) -> bool:
    return pair is not None and pair.adjusted < SIGNIFICANT


def _proof(pair: Pair | None, opening: str = " (", closing: str = ")") -> str:
    return f"{opening}p {probability(pair.adjusted)} after Holm's correction{closing}" if pair else ""


def _caveats(table: Table) -> list[str]:
    found = []
    alone = [row for row in table.rows if len(row.seeds) == 1]
    if alone:
        who = "Every row" if len(alone) == len(table.rows) else counted(len(alone), "row")
        found.append(
            f"{who} {'rests' if len(alone) in (1, len(table.rows)) else 'rest'} on a single seed, "
            "and nothing shows how another seed would do."
        )
    chosen = [row for row in table.rows if row.setting == "external"]
    if chosen:
        found.append(
            f"{counted(len(chosen), 'row is', 'rows are')} of external predictions, whose selection rule is what "
            "their submitter states."
        )
    return found
