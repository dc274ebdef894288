"""A row's values as the text of cells, alike in Markdown, LaTeX and on a screen. What was not measured is a dash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mer_bench.leaderboard.table import Figure, Key, Row

DASH = "–"


@dataclass(frozen=True)
class Column:
    """A column of the table of rows.

    Attributes:
        title: In full. short: For a narrow head.
        text: The cell of a row.
        number: Right-aligned.
        paper: Whether it stands in a table for a paper.
    """

    title: str
    short: str
    text: Callable[[Row], str]
    number: bool = True
    paper: bool = True


def percent(value: Figure | float | None) -> str:
    """A fraction, or the mean of several, in percent."""
    share = value.mean if isinstance(value, Figure) else value
    return DASH if share is None else f"{100 * share:.2f}"


def spread(figure: Figure | None) -> str:
    """Mean and standard deviation over the seeds in percent; with one seed the mean alone."""
    if figure is None:
        return DASH
    return percent(figure) if figure.sd is None else f"{percent(figure)} ± {percent(figure.sd)}"


def interval(figure: Figure) -> str:
    """Where the mean lies, in percent."""
    return DASH if figure.low is None else f"{percent(figure.low)} to {percent(figure.high)}"


def gain(figure: Figure | None) -> str:
    """A difference in percentage points, with its sign."""
    return DASH if figure is None else points(figure.mean)


def points(difference: float | None) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return DASH if difference is None else f"{100 * difference:+.2f}"


def count(number: int | None) -> str:
    """A whole number with commas between its thousands."""
    return DASH if number is None else f"{number:,}"


def seconds(value: float | None) -> str:
    """Seconds; below ten with a decimal."""
    if value is None:
        return DASH
    return f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def gigabytes(value: int | None) -> str:
    """Bytes as gigabytes."""
    return DASH if value is None else f"{value / 1e9:.2f} GB"


def device(row: Row) -> str:
    """What a row ran on, and with how many threads."""
    if row.device is None:
        return DASH
    threads = "" if row.threads is None else f", {row.threads} thread{'s' if row.threads > 1 else ''}"
    return f"{row.device}{threads}"


def settings(row: Row) -> str:
    """Where a row's settings come from: `card`, `tuned, 50 trials`, `own: layers=4`."""
    if row.setting == "tuned":
        return "tuned" if row.trials is None else f"tuned, {row.trials} trial{'s' if row.trials > 1 else ''}"
    if row.setting == "own settings":
        return f"own: {', '.join(row.overrides)}"
    return row.setting.removesuffix(" settings")


def probability(value: float) -> str:
    """A p-value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def part(full: str) -> str:
    """`emotion` of `meld/emotion`."""
    return full.partition("/")[2]


def title(key: Key) -> str:
    """What a table is about, in a line."""
    made_up = ", made-up dialogues" if key.synthetic else ""
    condition = f", tested under {key.condition}" if key.condition else ""
    return (
        f"{key.dataset}: {part(key.labels)} from {part(key.features)}, {' + '.join(key.modalities)}, "
        f"protocol {part(key.protocol)} version {key.protocol_version}{condition}{made_up}"
    )


COLUMNS: tuple[Column, ...] = (
    Column("rank", "rank", lambda row: DASH if row.rank is None else str(row.rank)),
    Column("model", "model", lambda row: row.label, number=False),
    Column("weighted F1", "W-F1", lambda row: spread(row.weighted_f1)),
    Column("95 % interval", "95 %", lambda row: interval(row.weighted_f1)),
    Column("accuracy", "acc", lambda row: percent(row.accuracy)),
    Column("macro F1", "M-F1", lambda row: percent(row.macro_f1)),
    Column("UAR", "UAR", lambda row: percent(row.uar)),
    Column("calibration error", "ECE", lambda row: percent(row.calibration_error)),
    Column("emotion-shift accuracy", "shift", lambda row: percent(row.emotion_shift_accuracy)),
    Column("selection gap", "gap", lambda row: gain(row.selection_gap), paper=False),
    Column("seeds", "seeds", lambda row: str(len(row.seeds))),
    Column("settings", "settings", settings, number=False, paper=False),
    Column("parameters", "parameters", lambda row: count(row.parameters)),
    Column("training seconds", "seconds", lambda row: seconds(row.train_seconds)),
    Column("peak memory", "memory", lambda row: gigabytes(row.memory_bytes), paper=False),
    Column("device", "device", device, number=False, paper=False),
)
"""In the order in which they stand."""
