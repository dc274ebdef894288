"""`mer-bench leaderboard build` and `leaderboard show`: tables of records, as pages and on the screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mer_bench.cli.commands import Commands, help_when_alone
from mer_bench.cli.options import Debug, Json

if TYPE_CHECKING:
    from mer_bench.cli.console import Column, Screen
    from mer_bench.leaderboard.building import Outline
    from mer_bench.leaderboard.gathering import Entry
    from mer_bench.leaderboard.table import Table

DEFAULT_RECORDS = "leaderboards/records"

commands = typer.Typer(cls=Commands, rich_markup_mode=None, invoke_without_command=True, callback=help_when_alone)


@commands.command("build")
def build(
    records: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RECORDS]...",
            help=f"Records, or folders that hold them; default: {DEFAULT_RECORDS}.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the pages; required.", show_default=False)
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write every leaderboard as a page, Markdown, CSV, JSON and LaTeX, and an index.

    The same records give the same bytes, in any order and on any machine. Pages of leaderboards that are no more are
    removed from DIR; nothing else in it is touched.

    \b
    Examples:
      mer-bench leaderboard build --out leaderboards/reports
      mer-bench leaderboard build runs my-friend/runs --out pages
    """
    from mer_bench.cli.console import Screen
    from mer_bench.errors import RequestError
    from mer_bench.leaderboard.building import build_boards
    from mer_bench.leaderboard.gathering import processes_here
    from mer_bench.leaderboard.writing import write_boards

    given = records or [Path(DEFAULT_RECORDS)]
    if out is None:
        raise RequestError("where should the pages go? Give a folder, such as --out leaderboards/reports")
    for path in given:
        if out.absolute().is_relative_to(path.absolute()) and path.is_dir():
            raise RequestError(
                f"--out {out} lies in {path}, where every .json is a record. Choose a folder that is not among records."
            )
    screen = Screen(quiet_output=as_json)
    with _reading(screen, given) as entries:
        boards = build_boards(entries, processes=processes_here())
    files, gone = write_boards(boards, out)
    if as_json:
        screen.answer({"files": files, "removed": gone})
        return
    rows = _counted(sum(len(table.rows) for table in boards.tables), "row")
    screen.line(f"{_counted(len(boards.tables), 'leaderboard')} with {rows} of {_counted(len(entries), 'record')}")
    for each in boards.unscored:
        screen.warn(f"{each.name} has no page, since every run of it failed; the index says why.")
    if gone:
        screen.line(f"removed {_counted(len(gone), 'file')} of leaderboards that are no more", tone="quiet")
    screen.exactly(f"index: {out / 'index.html'}")


@commands.command("show")
def show(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[LEADERBOARD]", help="Its name or a part of it; without one, all the names.", show_default=False
        ),
    ] = None,
    records: Annotated[
        list[Path] | None,
        typer.Option(
            "--records",
            metavar="PATH",
            help=f"Record, or folder that holds some; repeat for more; default: {DEFAULT_RECORDS}.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", metavar="N", min=1, help="So many rows; default: all.", show_default=False)
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a leaderboard here: who leads, by how much, and what no test separates.

    \b
    Examples:
      mer-bench leaderboard show
      mer-bench leaderboard show meld.emotion.transcripts.official.text-audio
      mer-bench leaderboard show iemocap.six.transcripts.cosmic.text-audio --top 5
      mer-bench leaderboard show --records runs
    """
    from mer_bench.cli.console import Screen
    from mer_bench.leaderboard.building import build_boards, outline

    screen = Screen(quiet_output=as_json)
    with _reading(screen, records or [Path(DEFAULT_RECORDS)]) as entries:
        outlines = outline(entries)
        chosen = _chosen(outlines, name)
        if len(chosen) == 1 and chosen[0].experiments:
            (table,) = build_boards(entries, lambda each: each.name == chosen[0].name).tables
        else:
            table = None
    if table is None:
        _show_names(screen, chosen, as_json)
    elif as_json:
        screen.answer(table.model_dump(mode="json"))
    else:
        show_table(screen, table, top)


@contextmanager
def _reading(screen: Screen, paths: Sequence[Path]) -> Iterator[list[Entry]]:
    """The entries of all records, with a bar while they are read and while something is made of them."""
    from contextlib import ExitStack

    from mer_bench.cli.console import Bar
    from mer_bench.leaderboard.gathering import gather, processes_here

    with ExitStack() as stack:
        bar = stack.enter_context(Bar(screen, 0)) if screen.is_terminal else None

        def told(done: int, total: int) -> None:
            if bar is not None:
                bar.show("records", f"{done:,} of {total:,}", done, total)

        entries = gather(paths, processes_here(), told)
        if bar is not None:
            bar.show("tests", f"{len(entries):,} records")
        yield entries


def _chosen(outlines: Sequence[Outline], name: str | None) -> Sequence[Outline]:
    """The leaderboard of that name, or else those whose names hold all the given parts."""
    from mer_bench.errors import UnknownNameError

    if name is None:
        return outlines
    exact = [each for each in outlines if each.name == name]
    found = exact or [each for each in outlines if name.casefold() in each.name.casefold()]
    if not found:
        raise UnknownNameError("leaderboard", name, [each.name for each in outlines], "mer-bench leaderboard show")
    return found


def _show_names(screen: Screen, outlines: Sequence[Outline], as_json: bool) -> None:
    from mer_bench.cli.console import Column, percent

    if as_json:
        screen.answer([each.name for each in outlines])
        return
    rows = []
    for each in outlines:
        best = each.experiments[0] if each.experiments else None
        score = percent(best.weighted_f1 if best else None)
        rows.append([each.name, str(len(each.experiments)), best.label if best else "every run failed", score])
    screen.table(
        [
            Column("leaderboard", narrow="wrap"),
            Column("rows", number=True),
            Column("highest", narrow="end"),
            Column("weighted F1", number=True),
        ],
        rows,
    )
    screen.line("one of them: mer-bench leaderboard show LEADERBOARD", tone="quiet")


_LEAST_WANTED = (
    "device",
    "peak memory",
    "selection gap",
    "calibration error",
    "training seconds",
    "parameters",
    "emotion-shift accuracy",
    "settings",
    "UAR",
    "macro F1",
    "accuracy",
    "seeds",
)
"""Columns that a narrow screen does without, those that go first before the others."""


def show_table(screen: Screen, table: Table, top: int | None = None) -> None:
    """A leaderboard on a screen; a narrow one has fewer columns, and says which are left out."""
    from mer_bench.leaderboard import cells
    from mer_bench.leaderboard.cells import COLUMNS, DASH
    from mer_bench.leaderboard.words import verdict

    rows = table.rows[:top]
    # What nothing was measured of is no column.
    there = [column for column in COLUMNS if any(column.text(row) != DASH for row in table.rows)]
    left_out: list[str] = []
    for title in _LEAST_WANTED:
        if _width(
            [_head(column.short, column.number) for column in there], [[c.text(r) for c in there] for r in rows]
        ) <= (screen.words.width):
            break
        left_out += [column.title for column in there if column.title == title]
        there = [column for column in there if column.title != title]
    screen.line(cells.title(table.key), tone="plain")
    screen.line(" ".join(verdict(table).sentences))
    screen.line()
    screen.table(
        [_head(column.short, column.number, column.short == "model") for column in there],
        [[column.text(row) for column in there] for row in rows],
        tones={index: "good" for index, row in enumerate(rows) if row.rank == 1},
    )
    if len(rows) < len(table.rows):
        screen.line(f"and {_counted(len(table.rows) - len(rows), 'row')} more", tone="quiet")
    screen.line(_legend([column.short for column in there], table), tone="quiet")
    if left_out:
        screen.line(f"left out on a screen this narrow: {', '.join(reversed(left_out))}", tone="quiet")
    failed = [(row.label, row.failed) for row in table.rows if row.failed]
    failed += [(each.label, each.failed) for each in table.failed]
    for label, reasons in failed:
        for seed, reason in reasons.items():
            screen.warn(f"{label}, seed {seed}, failed: {reason}")


def _legend(shown: Sequence[str], table: Table) -> str:
    words = {
        "acc": "acc: accuracy",
        "M-F1": "M-F1: macro F1",
        "UAR": "UAR: unweighted average recall",
        "ECE": "ECE: calibration error",
        "shift": "shift: accuracy where a speaker's emotion changes",
        "gap": "gap: how much higher with the epoch chosen on test",
    }
    told = ["W-F1: weighted F1 in percent, ± between seeds", *(words[name] for name in shown if name in words)]
    if table.pairs:
        told.append(
            f"rows of one rank: not separated (paired bootstrap over dialogues, {table.resamples:,} resamples, Holm)"
        )
    return "; ".join(told)


def _head(title: str, number: bool, wraps: bool = False) -> Column:
    from mer_bench.cli.console import Column

    return Column(title, number=number, narrow="end" if wraps else "keep")


def _width(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    from mer_bench.cli.console import GAP, UNLIMITED_WIDTH, column_widths

    return sum(column_widths(columns, rows, UNLIMITED_WIDTH)) + GAP * (len(columns) - 1)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
