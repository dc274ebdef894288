"""The table of a page: which columns it has, and each row's cells, sortable by what they hold."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from mer_bench.leaderboard.page.markup import name, scrolling, text
from mer_bench.leaderboard.table import Figure, Row, Table
from mer_bench.leaderboard.words import (
    DASH,
    counted,
    grouped,
    percent,
    points,
    seconds,
    short,
)

MANY_ROWS = 30
"""From here the table has a box of its own height, so that its header stays in sight."""


@dataclass(frozen=True)
class Cell:
    """What a cell shows, as HTML, and what it is sorted by; None stands last in every order."""

    html: str
    value: float | str | None


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        key: Its name in the page's code.
        group: Under which it is offered in the choice of columns; None: always shown.
        told: What it is, for a pointer that rests on it and for screen readers.
        falls: Whether its best value is the highest: sorted so first.
        shown: Whether a page opens with it.
    """

    key: str
    title: str
    cell: Callable[[Row], Cell]
    group: str | None
    told: str = ""
    falls: bool = True
    shown: bool = True
    number: bool = True


MISSING = Cell(f'<span class="missing">{DASH}<span class="unseen"> not measured</span></span>', None)


def columns_of(table: Table) -> tuple[Column, ...]:
    """The columns of a table: those of every table, and one for each class."""
    scale = Scale.of(table)
    score = partial(Column, group="Scores", shown=True)
    classes = [
        Column(
            f"class-{place}",
            each,
            partial(_class_cell, each),
            "F1 by class",
            f"F1 of the class {each}, in percent",
            shown=False,
        )
        for place, each in enumerate(table.classes)
    ]
    return (
        Column("rank", "Rank", _rank_cell, None, "Rows of one rank are not separated by any test", falls=False),
        Column("label", "Model", _label_cell, None, falls=False, number=False),
        Column(
            "weighted_f1",
            "Weighted F1",
            partial(_headline_cell, scale),
            None,
            "Mean over the seeds ± standard deviation between seeds, in percent; the bar is its 95 % interval, the "
            "upright line the leader's mean",
        ),
        score("accuracy", "Accuracy", lambda row: _figure_cell(row.accuracy)),
        score("macro_f1", "Macro F1", lambda row: _figure_cell(row.macro_f1)),
        score("uar", "UAR", lambda row: _figure_cell(row.uar), told="Unweighted average recall"),
        score(
            "calibration_error",
            "ECE",
            lambda row: _figure_cell(row.calibration_error),
            told="Expected calibration error, in percent; less is better",
            falls=False,
        ),
        score(
            "emotion_shift_accuracy",
            "Shift",
            lambda row: _figure_cell(row.emotion_shift_accuracy),
            told="Accuracy where the speaker's emotion differs from the one before",
        ),
        score(
            "dev",
            "Dev",
            lambda row: _figure_cell(row.dev),
            told="Weighted F1 on dev, by which the epoch was chosen",
            shown=False,
        ),
        score(
            "selection_gap",
            "Gap",
            lambda row: _gap_cell(row.selection_gap),
            told="What the score would gain with the epoch chosen on test, in points",
            shown=any(row.selection_gap for row in table.rows),
        ),
        *classes,
        Column("seeds", "Seeds", _seeds_cell, "Settings", "Runs that the row is the mean of"),
        Column(
            "setting", "Settings", _setting_cell, "Settings", "Where the settings come from", falls=False, number=False
        ),
        Column(
            "overrides",
            "Chosen by hand",
            lambda row: _text_cell(", ".join(row.overrides)),
            "Settings",
            "Settings that somebody chose himself",
            falls=False,
            shown=False,
            number=False,
        ),
        Column(
            "rule",
            "Epoch chosen by",
            lambda row: _text_cell(row.selection_rule),
            "Settings",
            "How the epoch was chosen",
            falls=False,
            shown=False,
            number=False,
        ),
        Column("parameters", "Parameters", _parameters_cell, "Cost", "Numbers that are trained", falls=False),
        Column(
            "train_seconds", "Train, s", _seconds_cell, "Cost", "Seconds of training, mean over the seeds", falls=False
        ),
        Column("memory", "Memory, MB", _memory_cell, "Cost", "Peak memory, in millions of bytes", falls=False),
        Column("device", "Device", lambda row: _text_cell(row.device or ""), "Cost", falls=False, number=False),
        Column("threads", "Threads", lambda row: _count_cell(row.threads), "Cost", falls=False, shown=False),
        Column(
            "effect_size",
            "Effect size",
            _effect_cell,
            "Distance to the leader",
            "Difference to the leader in standard deviations over dialogues",
            falls=False,
            shown=False,
        ),
        Column(
            "superiority",
            "Leader better",
            lambda row: _share_cell(row.superiority),
            "Distance to the leader",
            "Probability that the leader is better on a drawn dialogue, in percent",
            falls=False,
            shown=False,
        ),
    )


@dataclass(frozen=True)
class Scale:
    """From a score to its place on the small bars, which are alike in all rows."""

    low: float
    high: float
    leader: float

    @staticmethod
    def of(table: Table) -> Scale:
        """The scale on which every row's interval has room, but for those of rows far below all the others."""
        floor = floor_of(table)
        figures = [row.weighted_f1 for row in table.rows if floor is None or row.weighted_f1.mean >= floor]
        ends = [end for each in figures for end in (each.low, each.high, each.mean) if end is not None]
        margin = max(0.04 * (max(ends) - min(ends)), 0.002)
        return Scale(min(ends) - margin, max(ends) + margin, table.rows[0].weighted_f1.mean)

    def place(self, value: float) -> str:
        """Percent of the bar's width."""
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * min(1.0, max(0.0, share)):.1f}%"


def floor_of(table: Table) -> float | None:
    """The score below which a row is so far from the others that it would flatten what is drawn; None: no row is.

    Source: Tukey (1977), "Exploratory Data Analysis", with a fence of twice the distance of the quartiles.
    """
    means = sorted(row.weighted_f1.mean for row in table.rows)
    if len(means) < 5:
        return None
    first, _, third = statistics.quantiles(means, n=4, method="inclusive")
    fence = first - 2 * max(third - first, 0.01)
    return fence if means[0] < fence else None


def score_table(table: Table) -> str:
    """The table, best row first."""
    columns = columns_of(table)
    head = "".join(map(_header, columns))
    body = "".join(
        f'<tr data-row="{place}" data-rank="{"" if row.rank is None else row.rank}" data-setting="{text(row.setting)}">'
        f"{''.join(_cells(columns, row))}</tr>"
        for place, row in enumerate(table.rows)
    )
    caption = (
        f"Scores in percent on {counted(table.test_utterances, 'utterance')} of "
        f"{counted(table.test_dialogues, 'dialogue')}: mean over the seeds ± standard deviation between seeds; bars "
        "are 95 % intervals. A dash is a value that was not measured."
    )
    return scrolling(
        "Scores of all rows",
        f'<table id="scores" class="scores"><caption><span>{caption}</span></caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>",
        "tall" if len(table.rows) >= MANY_ROWS else "",
    )


def column_choice(table: Table) -> str:
    """Check boxes, one a column that can be hidden; the classes have one together."""
    groups: dict[str, list[Column]] = {}
    for column in columns_of(table):
        if column.group:
            groups.setdefault(column.group, []).append(column)
    boxes = ""
    for group, columns in groups.items():
        if group == "F1 by class":
            each = [("class", "All classes", False)]
        else:
            each = [(column.key, column.title, column.shown) for column in columns]
        boxes += (
            f"<fieldset><legend>{text(group)}</legend>"
            + "".join(
                f'<label><input type="checkbox" data-column="{key}"{" checked" if shown else ""}> {text(title)}</label>'
                for key, title, shown in each
            )
            + "</fieldset>"
        )
    return f'<details class="columns"><summary>Columns</summary><div class="choices">{boxes}</div></details>'


def _header(column: Column) -> str:
    kind = "number" if column.number else "words"
    sort = ' aria-sort="ascending"' if column.key == "rank" else ""
    told = f' title="{text(column.told)}"' if column.told else ""
    order = "falls" if column.falls else "rises"
    away = "" if column.shown else " data-away"
    return (
        f'<th scope="col" class="{kind} c-{column.key}" data-column="{column.key}" data-first="{order}"{sort}{away}>'
        f'<button type="button"{told}>{text(column.title)}</button></th>'
    )


def _cells(columns: tuple[Column, ...], row: Row) -> Iterator[str]:
    for column in columns:
        cell = column.cell(row)
        kind = "number" if column.number else "words"
        value = "" if cell.value is None else f' data-value="{text(_sorted_by(cell.value))}"'
        tag, scope = ("th", ' scope="row"') if column.key == "label" else ("td", "")
        yield f'<{tag}{scope} class="{kind} c-{column.key}"{value}>{cell.html}</{tag}>'


def _sorted_by(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _rank_cell(row: Row) -> Cell:
    return MISSING if row.rank is None else Cell(str(row.rank), row.rank)


def _label_cell(row: Row) -> Cell:
    failed = ""
    if row.failed:
        failed = f' <span class="tag warn">{counted(len(row.failed), "failed run")}</span>'
    return Cell(f"{name(row.label)}{failed}", row.label)


def _headline_cell(scale: Scale, row: Row) -> Cell:
    figure = row.weighted_f1
    leader = scale.place(scale.leader)
    drawn = f'<line class="leader" x1="{leader}" x2="{leader}" y1="0" y2="100%"/>'
    if figure.mean < scale.low:
        drawn += '<path d="M5 4 1 9 5 14"/>'  # it lies to the left of the scale
    else:
        drawn += _range(scale, figure) + f'<circle cx="{scale.place(figure.mean)}" cy="50%" r="3.5"/>'
    interval = ""
    if figure.low is not None and figure.high is not None:
        interval = (
            f'<span class="interval"><span class="unseen">95 % interval </span>{percent(figure.low, 1)}'
            f'<span aria-hidden="true">{DASH}</span><span class="unseen"> to </span>{percent(figure.high, 1)}</span>'
        )
    bar = f'<svg class="bar" aria-hidden="true">{drawn}</svg>'
    return Cell(f'<span class="headline">{_figure(figure)}{bar}{interval}</span>', figure.mean)


def _range(scale: Scale, figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    low, high = scale.place(figure.low), scale.place(figure.high)
    return f'<line class="range" x1="{low}" x2="{high}" y1="50%" y2="50%"/>'


def _figure(figure: Figure) -> str:
    spread = "" if figure.sd is None else f'<span class="sd">±{SPACE_IN_SPREAD}{percent(figure.sd)}</span>'
    return f'<span class="mean">{percent(figure.mean)}</span>{spread}'


SPACE_IN_SPREAD = "\N{THIN SPACE}"


def _figure_cell(figure: Figure | None) -> Cell:
    return MISSING if figure is None else Cell(_figure(figure), figure.mean)


def _gap_cell(figure: Figure | None) -> Cell:
    return MISSING if figure is None else Cell(points(figure.mean), figure.mean)


def _class_cell(label: str, row: Row) -> Cell:
    found = row.classes.get(label)
    return MISSING if found is None else Cell(percent(found.f1, 1), found.f1)


def _share_cell(value: float | None) -> Cell:
    return MISSING if value is None else Cell(percent(value, 1), value)


def _effect_cell(row: Row) -> Cell:
    return MISSING if row.effect_size is None else Cell(grouped(row.effect_size, 2), row.effect_size)


def _count_cell(value: int | None) -> Cell:
    return MISSING if value is None else Cell(grouped(value), value)


def _text_cell(value: str) -> Cell:
    return Cell(name(value), value) if value else MISSING


def _seeds_cell(row: Row) -> Cell:
    return Cell(str(len(row.seeds)), len(row.seeds))


def _setting_cell(row: Row) -> Cell:
    trials = f' <span class="sd">{counted(row.trials, "trial")}</span>' if row.trials is not None else ""
    return Cell(f"{text(row.setting.removesuffix(' settings'))}{trials}", row.setting)


def _parameters_cell(row: Row) -> Cell:
    return MISSING if row.parameters is None else Cell(short(row.parameters), row.parameters)


def _seconds_cell(row: Row) -> Cell:
    return MISSING if row.train_seconds is None else Cell(seconds(row.train_seconds), row.train_seconds)


def _memory_cell(row: Row) -> Cell:
    return MISSING if row.memory_bytes is None else Cell(grouped(row.memory_bytes / 1e6), row.memory_bytes)
