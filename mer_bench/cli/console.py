"""How things look on a screen: tables, panels, lines and bars. The only file that knows rich.

On a terminal, output fits its width. Without one (a pipe, a file) nothing is wrapped or cut, and
there are no bars: whoever has work to report prints plain lines instead.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

UNLIMITED_WIDTH = 1000
GAP = 3
NARROWEST = 8
SPEED_SECONDS = 8.0
Tone = Literal["plain", "good", "warning", "bad", "quiet"]
STYLES: dict[Tone, str] = {"plain": "", "good": "green", "warning": "yellow", "bad": "bold red", "quiet": "dim"}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        header: Its name.
        number: Right-aligned.
        narrow: What happens where the screen is too narrow for the table: `keep` its width, `wrap` onto
            further lines, or cut the text off at its `end` or its `start` (for paths).
    """

    header: str
    number: bool = False
    narrow: Literal["keep", "wrap", "end", "start"] = "keep"


class Screen:
    """Standard output and standard error.

    Args:
        quiet_output: Standard output is kept for one JSON answer; everything else that a person
            reads goes to standard error.
    """

    def __init__(self, quiet_output: bool = False) -> None:
        self.errors = _console(stderr=True)
        self.answers = _console(stderr=False)
        self.words = self.errors if quiet_output else self.answers

    @property
    def is_terminal(self) -> bool:
        """Whether a person watches, so that bars make sense."""
        return self.words.is_terminal and not self.words.is_dumb_terminal

    @property
    def can_ask(self) -> bool:
        """Whether somebody sees a question and can answer it."""
        return self.is_terminal and sys.stdin is not None and sys.stdin.isatty()

    def ask(self, question: str) -> bool:
        """Put a question; True only for a yes. Nothing, and the end of the input, is a no."""
        self.words.print(Text(f"{question} [y/N] "), end="")
        try:
            answer = input()
        except EOFError:
            self.words.print()
            return False
        return answer.strip().casefold() in ("y", "yes")

    def line(self, text: str = "", tone: Tone = "plain") -> None:
        """One line of plain text."""
        _print(self.words, Text(text, style=STYLES[tone]))

    def exactly(self, text: str) -> None:
        """One line that is never wrapped at words: a path in it can be copied whole."""
        self.words.print(Text(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        """A warning, on standard error."""
        _print(self.errors, Text.assemble(("warning: ", STYLES["warning"]), text))

    def fail(self, sentence: str) -> None:
        """The one sentence of an error, on standard error."""
        _print(self.errors, Text.assemble(("mer-bench: ", STYLES["bad"]), sentence))

    def panel(self, title: str, lines: Iterable[str], tone: Tone = "warning") -> None:
        """A box with a title that cannot be overlooked."""
        body = Text("\n".join(lines))
        style = STYLES[tone]
        width = None if self.words.is_terminal else 100
        self.words.print(Panel(body, title=Text(title, style=style), border_style=style, expand=False, width=width))

    def table(
        self,
        columns: Sequence[Column],
        rows: Iterable[Sequence[str]],
        title: str = "",
        tones: Mapping[int, Tone] | None = None,
    ) -> None:
        """Rows of text under named columns.

        Args:
            tones: Colour of some rows, by their index.
        """
        drawn = _drawn(columns, rows, self.words.width, tones or {})
        if title:
            _print(self.words, Text(title, style="bold"))
        self.words.print(drawn)

    def pairs(self, pairs: Iterable[tuple[str, str]], title: str = "") -> None:
        """Names and values below each other; long values continue under themselves."""
        drawn = Table.grid(padding=(0, 2))
        drawn.add_column(no_wrap=True, style="dim")
        drawn.add_column(overflow="fold")
        for name, value in pairs:
            drawn.add_row(Text(name), Text(value))
        if title:
            self.words.print(Text(title, style="bold"))
        self.words.print(drawn)

    def answer(self, value: Any) -> None:
        """One JSON document on standard output, for programs."""
        self.answers.file.write(json.dumps(value, indent=2, ensure_ascii=False, default=_as_json) + "\n")


class Bar:
    """A bar on the last line of the screen, while something long runs; used as a context manager."""

    def __init__(self, screen: Screen, total: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[detail]}"),
            console=screen.words,
            transient=True,
            expand=True,
        )
        self._task = self._progress.add_task("", total=total or None, detail="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, text: str, detail: str = "", done: int | None = None, total: int | None = None) -> None:
        """Move the bar to `done` of `total`, with words before and after it."""
        self._progress.update(self._task, description=text, detail=detail)
        if total is not None:
            self._progress.update(self._task, total=total)
        if done is not None:
            self._progress.update(self._task, completed=done)


class LiveTable:
    """Tables on the last lines of a terminal, drawn again and again while something long runs; a context manager.

    Whatever is printed meanwhile stands above them. They are gone at the end.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._live = Live(console=screen.words, transient=True, refresh_per_second=4)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, counts: Sequence[tuple[str, str]], columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        """One line of counts under their names, and a table, cut off where the screen ends.

        Args:
            counts: Names and values, from the left.
        """
        width, height = self._screen.words.size
        names = [Column(name, number=True) for name, _ in counts]
        shown = list(rows[: max(1, height - 8)])
        parts: list[RenderableType] = [_drawn(names, [[value for _, value in counts]], width, {})]
        if shown:
            parts += [Text(), _drawn(columns, shown, width, {})]
        if len(rows) > len(shown):
            parts.append(Text(f"and {len(rows) - len(shown)} more", style=STYLES["quiet"]))
        self._live.update(Group(*parts))


@contextmanager
def transfer_progress(screen: Screen) -> Iterator[Callable[[str, int, int], None]]:
    """A callback (file name, bytes done, bytes in all) that shows a download."""
    if not screen.is_terminal:
        finished: set[str] = set()

        def tell(name: str, done: int, total: int) -> None:
            if total and done >= total and name not in finished:
                finished.add(name)
                screen.line(f"fetched {name} ({size_text(total)})")

        yield tell
        return
    speed = Speed()
    bar: Bar | None = None

    def draw(name: str, done: int, total: int) -> None:
        nonlocal bar
        if bar is None:  # not before: until then somebody may be asked something
            bar = stack.enter_context(Bar(screen, 0))
        extent = f"{size_text(done)} of {size_text(total)}" if total else size_text(done)
        bar.show(name, ", ".join([extent, *speed.words(name, done, total, time.monotonic())]), done, total or None)

    with ExitStack() as stack:
        yield draw


class Speed:
    """How fast the file on its way comes, from the bytes of the last seconds."""

    def __init__(self) -> None:
        self._name = ""
        self._steps: deque[tuple[float, int]] = deque()

    def words(self, name: str, done: int, total: int, now: float) -> list[str]:
        """Speed and time left, as far as they are known.

        Args:
            now: Seconds of a clock that never goes back.
        """
        if name != self._name or (self._steps and done < self._steps[-1][1]):
            self._name = name
            self._steps.clear()
        # A step a tenth of a second is enough, however small the pieces are that come.
        if not self._steps or now - self._steps[-1][0] >= 0.1:
            self._steps.append((now, done))
        while now - self._steps[0][0] > SPEED_SECONDS and len(self._steps) > 2:
            self._steps.popleft()
        begun, before = self._steps[0]
        if now - begun < 1 or done <= before:
            return []
        rate = (done - before) / (now - begun)
        told = [f"{size_text(round(rate))}/s"]
        if total > done:
            told.append(f"{duration_text((total - done) / rate)} left")
        return told


def column_widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], screen: int) -> list[int]:
    """Width of each column, so that the table fits the screen where its columns allow it.

    Columns that keep their width get it; the others share what is left, the short ones first.
    """
    natural = [
        max([cell_len(column.header), *(cell_len(row[index]) for row in rows)]) for index, column in enumerate(columns)
    ]
    shared = [index for index, column in enumerate(columns) if column.narrow != "keep"]
    left = screen - GAP * (len(columns) - 1) - sum(width for index, width in enumerate(natural) if index not in shared)
    widths = list(natural)
    for done, index in enumerate(sorted(shared, key=lambda index: natural[index])):
        fair = left // (len(shared) - done)
        widths[index] = min(natural[index], max(fair, NARROWEST, cell_len(columns[index].header)))
        left -= widths[index]
    return widths


def cut(text: str, width: int, column: Column) -> str:
    """The text, or as much of it as the column shows, with an ellipsis for the rest."""
    if column.narrow in ("keep", "wrap") or cell_len(text) <= width:
        return text
    if column.narrow == "end":
        return set_cell_size(text, width - 1).rstrip() + "…"
    while cell_len(text) > width - 1:
        text = text[1:]
    return "…" + text


def size_text(count: int) -> str:
    """A number of bytes for people: `4.2 MB`."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def duration_text(seconds: float) -> str:
    """A duration for people: `0.4 s`, `8 s`, `2:05`, `1:02:05`."""
    if 0 < seconds < 0.95:
        return f"{max(seconds, 0.1):.1f} s"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(share: float | None) -> str:
    """A fraction in [0, 1] as percent with two decimals; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.2f}"


def _drawn(columns: Sequence[Column], rows: Iterable[Sequence[str]], screen: int, tones: Mapping[int, Tone]) -> Table:
    """A table that fits the screen where its columns allow it."""
    cells = [list(row) for row in rows]
    widths = column_widths(columns, cells, screen)
    # Padding only to the right, and as wide as `column_widths` reckons.
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        drawn.add_column(
            Text(column.header),
            justify="right" if column.number else "left",
            no_wrap=column.narrow != "wrap",
            overflow="fold",
            width=width,
        )
    for index, row in enumerate(cells):
        style = STYLES[tones.get(index, "plain")]
        shown = [cut(cell, width, column) for cell, width, column in zip(row, widths, columns, strict=True)]
        drawn.add_row(*(Text(cell) for cell in shown), style=style)
    return drawn


def _console(stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=UNLIMITED_WIDTH)
    return console


def _print(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=not console.is_terminal)


def _as_json(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")
