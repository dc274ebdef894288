"""Tables, panels and lines on screens of any width."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from mer_bench.cli.console import (
    GAP,
    NARROWEST,
    Column,
    Screen,
    Speed,
    column_widths,
    cut,
    duration_text,
    percent,
    size_text,
    transfer_progress,
)


def screen_of(width: int) -> tuple[Screen, io.StringIO]:
    """A terminal of that width, and what is drawn on it."""
    drawn = io.StringIO()
    screen = Screen()
    screen.words = screen.errors = Console(file=drawn, width=width, force_terminal=True, color_system=None, emoji=False)
    return screen, drawn


NARROW = st.sampled_from(["keep", "wrap", "end", "start"])
CELLS = st.text(alphabet="ab é情 ", max_size=60).map(str.strip)


@settings(deadline=None)
@given(st.lists(NARROW, min_size=1, max_size=5), st.data(), st.integers(40, 160))
def test_columns_that_keep_their_width_get_it_and_the_others_share_the_rest(
    narrow: list[str], data: st.DataObject, screen: int
) -> None:
    columns = [Column(f"c{index}", narrow=each) for index, each in enumerate(narrow)]  # type: ignore[arg-type]
    rows = data.draw(st.lists(st.tuples(*[CELLS] * len(columns)), max_size=4))
    widths = column_widths(columns, rows, screen)
    natural = [max([2, *(cell_len(row[index]) for row in rows)]) for index in range(len(columns))]
    shared = [index for index, column in enumerate(columns) if column.narrow != "keep"]
    assert all(widths[index] == natural[index] for index in range(len(columns)) if index not in shared)
    assert all(widths[index] <= max(natural[index], NARROWEST) for index in shared)
    if sum(natural) + GAP * (len(columns) - 1) <= screen:
        assert all(widths[index] >= natural[index] for index in shared)
    least = sum(natural[index] for index in range(len(columns)) if index not in shared)
    if least + NARROWEST * len(shared) + GAP * (len(columns) - 1) <= screen:
        assert sum(widths) + GAP * (len(columns) - 1) <= screen


@settings(deadline=None)
@given(CELLS, st.integers(8, 40))
def test_what_is_cut_fits_and_keeps_its_better_end(text: str, width: int) -> None:
    for narrow in ("end", "start"):
        shown = cut(text, width, Column("x", narrow=narrow))
        assert cell_len(shown) <= width
        assert shown == text or (shown.endswith("…") if narrow == "end" else text.endswith(shown.removeprefix("…")))


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_fits_its_terminal(width: int) -> None:
    screen, drawn = screen_of(width)
    long = "a rather long explanation of what this row is about " * 3
    rows = [["name-of-model", long, "/very/long/path" * 10 + "/end.csv", long, "12.34"]]
    columns = [
        Column("name"),
        Column("what", narrow="end"),
        Column("path", narrow="start"),
        Column("why", narrow="wrap"),
        Column("score", number=True),
    ]
    screen.table(columns, rows, title="Things", tones={0: "bad"})
    lines = drawn.getvalue().splitlines()
    assert max(len(line) for line in lines) <= width
    assert "name-of-model" in lines[3]
    assert "12.34" in lines[3]
    assert "/end.csv" in lines[3]
    assert "…" in lines[3]


def test_markup_in_names_is_shown_as_it_is() -> None:
    screen, drawn = screen_of(80)
    screen.table([Column("[bold]name")], [["[red]x[/red] :smile:"]])
    screen.line("[/nothing] :smile:")
    screen.panel("[title]", ["[/line]"])
    for text in ("[bold]name", "[red]x[/red] :smile:", "[/nothing] :smile:", "[title]", "[/line]"):
        assert text in drawn.getvalue()


def test_without_a_terminal_nothing_is_wrapped_or_coloured(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    text = "word " * 100
    screen.line(text, tone="bad")
    screen.table([Column("what", narrow="wrap")], [[text.strip()]])
    screen.fail(text)
    captured = capsys.readouterr()
    assert text.strip() in captured.out.splitlines()[0]
    assert text.strip() in captured.out.splitlines()[3]
    assert captured.err == f"mer-bench: {text}\n"
    assert "\x1b" not in captured.out
    assert not screen.is_terminal


def test_one_json_answer_stands_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(quiet_output=True)
    screen.line("said")
    screen.panel("told", ["so"])
    screen.answer({"path": Path("a/b"), "names": {"y", "x"}, "é": (1, None)})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"path": "a/b", "names": ["x", "y"], "é": [1, None]}
    assert "said" in captured.err
    with pytest.raises(TypeError, match="object is no JSON value"):
        screen.answer(object())


def test_a_transfer_without_a_terminal_is_one_line_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with transfer_progress(Screen()) as progress:
        for done in (0, 500_000, 1_200_000, 1_200_000):
            progress("a.csv", done, 1_200_000)
        progress("b.csv", 3, 3)
    assert capsys.readouterr().out == "fetched a.csv (1.2 MB)\nfetched b.csv (3 bytes)\n"


def test_a_transfer_on_a_terminal_is_a_bar() -> None:
    screen, drawn = screen_of(80)
    with transfer_progress(screen) as progress:
        progress("a.csv", 600_000, 1_200_000)
        progress("unknown.csv", 600_000, 0)
    assert "600.0 kB" in drawn.getvalue()


def test_no_bar_stands_in_the_way_of_a_question() -> None:
    screen, drawn = screen_of(80)
    with transfer_progress(screen):
        pass
    assert drawn.getvalue() == ""


class TestSpeed:
    def test_the_last_seconds_count(self) -> None:
        """Ten slow seconds, then a fast stretch: what is shown is the fast one."""
        speed = Speed()
        assert speed.words("a", 0, 10_000_000, 0.0) == []
        assert speed.words("a", 100_000, 10_000_000, 0.5) == []  # too early to tell
        assert speed.words("a", 200_000, 10_000_000, 2.0) == ["100.0 kB/s", "1:38 left"]
        for second in range(3, 41):
            told = speed.words("a", 200_000 + second * 200_000, 10_000_000, float(second))
        assert told == ["200.0 kB/s", "9 s left"]

    def test_another_file_and_a_new_beginning_start_anew(self) -> None:
        speed = Speed()
        for name in ("a", "b", "b"):  # the second time from the first byte again
            assert speed.words(name, 0, 0, 0.0) == []
            assert speed.words(name, 5_000_000, 0, 5.0) == ["1.0 MB/s"]

    def test_what_does_not_move_has_no_speed(self) -> None:
        speed = Speed()
        for second in range(20):
            assert speed.words("a", 1000, 5000, float(second)) == []


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (4_200_000, "4.2 MB"), (7_000_000_000_000, "7000.0 GB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.01, "0.1 s"),
        (0.42, "0.4 s"),
        (0.96, "1 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (125, "2:05"),
        (3725, "1:02:05"),
        (-3, "0 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_percentages() -> None:
    assert (percent(0.56125), percent(None), percent(1.0)) == ("56.12", "-", "100.00")


def test_no_other_file_of_the_command_line_knows_rich() -> None:
    folder = Path(sys.modules["mer_bench.cli"].__path__[0])
    assert [
        file.name
        for file in sorted(folder.glob("*.py"))
        if "rich"
        in {
            word
            for line in file.read_text().splitlines()
            if line.split()[:1] in (["from"], ["import"])
            for word in line.replace(".", " ").split()
        }
    ] == ["console.py"]
