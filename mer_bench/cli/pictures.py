"""Pictures of what a store holds, as png, svg or pdf; matplotlib is imported when one is drawn.

The style is fixed: colours that people with any colour vision tell apart (Okabe & Ito 2008), another line
or hatch for each split besides, and the same bytes for the same numbers and the same matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_bench.atomic import write_atomically
from mer_bench.cards import SplitName
from mer_bench.errors import RequestError

if TYPE_CHECKING:
    from mer_bench.data.description import SplitDescription, StoreDescription, Tally

FORMATS = ("png", "svg", "pdf")
COLOURS: Mapping[SplitName, str] = {"train": "#0072B2", "dev": "#E69F00", "test": "#009E73"}
HATCHES: Mapping[SplitName, str] = {"train": "", "dev": "////", "test": "...."}
LINES: Mapping[SplitName, Any] = {"train": "-", "dev": (0, (4, 1.5)), "test": (0, (1.2, 1.2))}
INK, QUIET, RULE = "#222222", "#666666", "#DDDDDD"
MOST_STEPS = 18
ROOM_FOR_LEGEND = 1.6
"""Height of an axis over its highest value: the legend of three lines stands in what is left."""
LONGEST_NAME = 28
"""Characters of a class or modality that are shown; the rest becomes an ellipsis."""

LEGEND: Mapping[str, Any] = {"fontsize": 8, "labelspacing": 0.25, "borderaxespad": 0.0, "borderpad": 0.1}
"""Of the legends inside a panel."""

STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so a picture looks the same everywhere
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.7,
    "hatch.color": "white",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "mer-bench",
}


def picture_file(given: Path, name: str) -> Path:
    """The file that `--plot` names: the one given, or `<name>.png` in a folder that is there.

    Raises:
        RequestError: If its ending is none of FORMATS.
    """
    file = given / f"{name}.png" if given.is_dir() else given
    if file.suffix.removeprefix(".").lower() not in FORMATS:
        raise RequestError(f"a picture ends in .png, .svg or .pdf, but --plot names {file}.")
    return file


def draw_store(description: StoreDescription, title: str, file: Path) -> None:
    """Draw a store: label shares, dialogue lengths, speakers, and what is missing, by split.

    Args:
        title: Name of the dataset.
        file: Where to; its ending decides the format.

    Raises:
        RequestError: If matplotlib is not installed.
        StorageError: If the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise RequestError(
            "a picture needs matplotlib, which is not installed. Install it with: pip install 'mer-bench[plot]'"
        ) from None
    kind = file.suffix.removeprefix(".").lower()
    # A time stamp or a version in the file would make two pictures of the same numbers differ.
    metadata: dict[str, Any] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }[kind]
    memory = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own matplotlibrc says
        matplotlib.rcParams.update(STYLE)
        figure_of(description, title).savefig(memory, format=kind, metadata=metadata)
    write_atomically(file, memory.getvalue())


def figure_of(description: StoreDescription, title: str) -> Any:
    """The picture as a matplotlib Figure, in the style that is in force."""
    from matplotlib.figure import Figure

    rows = len(description.widths) + 1
    height = max(6.2 + 0.3 * rows, 1.9 + 0.62 * len(description.classes))
    figure: Any = Figure(figsize=(11, height), dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1, wspace=0.04, hspace=0.0)
    grid = figure.add_gridspec(3, 2, width_ratios=[1.05, 1], height_ratios=[1, 0.8, 0.26 + 0.14 * rows])
    _title(figure, description, title)
    _labels(figure.add_subplot(grid[:, 0]), description)
    _lengths(figure.add_subplot(grid[0, 1]), description)
    _speakers(figure.add_subplot(grid[1, 1]), description)
    _missing(figure.add_subplot(grid[2, 1]), description)
    return figure


def shares_text(part: int, whole: int) -> str:
    """`none`, or how many and what share: `1 (0.01 %)`."""
    if part == 0:
        return "none"
    share = 100 * part / whole
    digits = 0 if share >= 9.95 or part == whole else 1 if share >= 0.095 else 2
    return f"{part} ({share:.{digits}f} %)" if share >= 0.005 else f"{part} (< 0.01 %)"


def shortened(name: str) -> str:
    """A name as far as it is shown."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _title(figure: Any, description: StoreDescription, title: str) -> None:
    """What is shown, and below it the one legend of the splits."""
    from matplotlib.patches import Patch

    key = description.key
    fold = "" if key.fold is None else f", fold {key.fold}"
    # The empty line keeps the place of the legend.
    figure.suptitle(
        f"{title}:  {key.features}, {key.labels}, {key.protocol}{fold}\n", x=0.012, ha="left", weight="bold", size=13
    )
    figure.legend(
        handles=[
            Patch(
                facecolor=COLOURS[split],
                hatch=HATCHES[split],
                edgecolor="white",
                linewidth=0,
                label=f"{split}: {each.dialogues} dialogues, {each.utterances} utterances",
            )
            for split, each in _present(description).items()
        ],
        loc="upper left",
        bbox_to_anchor=(0.004, 1 - 0.34 / figure.get_figheight()),
        ncols=len(COLOURS),
        handlelength=1.8,
        handleheight=1.1,
        columnspacing=2.5,
    )


def _labels(axes: Any, description: StoreDescription) -> None:
    """Grouped bars, a class a group: share of the labelled utterances in each split."""
    splits = _present(description)
    # Two classes would else be bars as thick as a thumb.
    thick = 0.8 * min(1.0, (len(description.classes) + 1) / 6) / max(len(splits), 1)
    highest = 0.0
    for place, (split, each) in enumerate(splits.items()):
        shares = [100 * (each.label_share(name) or 0.0) for name in description.classes]
        centres = [row + thick * (place - (len(splits) - 1) / 2) for row in range(len(shares))]
        highest = max([highest, *shares])
        axes.barh(
            centres,
            shares,
            height=thick * 0.92,
            color=COLOURS[split],
            hatch=HATCHES[split],
            edgecolor="white",
            linewidth=0,
        )
        for centre, share, name in zip(centres, shares, description.classes, strict=True):
            told = f"{share:.1f} %" if each.labels[name] else "none"
            axes.annotate(told, (share, centre), (3, 0), textcoords="offset points", va="center", size=7.5, color=INK)
    axes.set_yticks(range(len(description.classes)), [shortened(name) for name in description.classes])
    axes.set_ylim(len(description.classes) - 0.4, -0.6)
    axes.set_xlim(0, max(highest * 1.14, 1))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel("share of the labelled utterances of a split, in percent")
    axes.set_title(f"Labels: {description.key.labels}")


def _lengths(axes: Any, description: StoreDescription) -> None:
    """Steps, a line a split: share of its dialogues by number of utterances."""
    splits = _present(description)
    longest = max((each.lengths.highest or 0 for each in splits.values()), default=1)
    wide = -(-longest // MOST_STEPS)
    edges = [1 + wide * place for place in range(longest // wide + 2)]
    _steps(axes, splits, {split: each.lengths for split, each in splits.items()}, edges)
    axes.set_xlabel("utterances of a dialogue" + (f", {wide} to a step" if wide > 1 else ""))
    axes.set_title("Lengths of dialogues")


def _steps(
    axes: Any, splits: Mapping[SplitName, SplitDescription], tallies: Mapping[SplitName, Tally], edges: Any
) -> None:
    highest = 1.0
    for split in splits:
        tally = tallies[split]
        shares = [0.0] * (len(edges) - 1)
        for number, count in tally.counts.items():
            shares[(number - edges[0]) // (edges[1] - edges[0])] += 100 * count / tally.total
        told = f"{split}: median {tally.median:g}, mean {tally.mean:.1f}, most {tally.highest}"
        # Centred on the number that a step stands for.
        axes.stairs(
            shares,
            [edge - 0.5 for edge in edges],
            color=COLOURS[split],
            linestyle=LINES[split],
            linewidth=1.7,
            label=told,
        )
        highest = max([highest, *shares])
    axes.set_xlim(edges[0] - 0.5, edges[-1] - 0.5)
    _share_axis(axes, highest)
    axes.legend(loc="upper right", handlelength=2.6, **LEGEND)


def _share_axis(axes: Any, highest: float) -> None:
    """The upright axis of shares up to a highest one, with room for a legend above it that no line crosses."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(nbins=4, min_n_ticks=3).tick_values(0, highest)
    axes.set_yticks([tick for tick in ticks if 0 <= tick <= 1.02 * highest])
    axes.set_ylim(0, ROOM_FOR_LEGEND * highest)
    axes.grid(axis="y")
    axes.set_ylabel("dialogues, in percent")


def _speakers(axes: Any, description: StoreDescription) -> None:
    """Grouped bars: share of a split's dialogues by number of speakers."""
    splits = _present(description)
    most = max((each.speakers.highest or 0 for each in splits.values()), default=1)
    if most > 14:
        wide = -(-most // MOST_STEPS)
        edges = [1 + wide * place for place in range(most // wide + 2)]
        _steps(axes, splits, {split: each.speakers for split, each in splits.items()}, edges)
    else:
        thick = 0.8 / max(len(splits), 1)
        numbers = range(1, most + 1)
        highest = 0.0
        for place, (split, each) in enumerate(splits.items()):
            shares = [100 * each.speakers.counts.get(number, 0) / each.speakers.total for number in numbers]
            highest = max([highest, *shares])
            axes.bar(
                [number + thick * (place - (len(splits) - 1) / 2) for number in numbers],
                shares,
                width=thick * 0.92,
                color=COLOURS[split],
                hatch=HATCHES[split],
                edgecolor="white",
                linewidth=0,
                label=f"{split}: mean {each.speakers.mean:.1f}",
            )
        axes.set_xticks(numbers)
        axes.set_xlim(0.4, max(most, 4) + 0.6)
        _share_axis(axes, highest)
        axes.tick_params(axis="x", length=0)
        axes.legend(loc="upper right", handlelength=1.8, handleheight=1.1, **LEGEND)
    axes.set_xlabel("speakers of a dialogue")
    axes.set_title("Speakers")


def _missing(axes: Any, description: StoreDescription) -> None:
    """A table with shaded cells: utterances without a label, and without each modality."""
    splits = _present(description)
    rows: list[tuple[str, Sequence[int]]] = [
        ("label", [each.utterances - each.labelled for each in splits.values()]),
        *((shortened(name), [each.missing[name] for each in splits.values()]) for name in description.widths),
    ]
    for row, (_, counts) in enumerate(rows):
        for column, (each, count) in enumerate(zip(splits.values(), counts, strict=True)):
            share = count / each.utterances
            # From white to a blue on which dark and white letters are both readable.
            shade = 0.0 if count == 0 else 0.08 + 0.62 * share
            colour = tuple(1 - shade * (1 - part) for part in (0.0, 0.447, 0.698))
            axes.add_patch(_rectangle(column, row, colour))
            told = shares_text(count, each.utterances)
            letters = "white" if shade > 0.55 else INK if count else QUIET
            axes.text(column + 0.5, row + 0.5, told, ha="center", va="center", size=8, color=letters)
    axes.set_xlim(0, max(len(splits), 1))
    axes.set_ylim(len(rows), 0)
    axes.set_xticks([place + 0.5 for place in range(len(splits))], list(splits))
    axes.set_yticks([place + 0.5 for place in range(len(rows))], [name for name, _ in rows])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("Utterances without", pad=8)


def _rectangle(column: int, row: int, colour: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column + 0.02, row + 0.06), 0.96, 0.88, facecolor=colour, edgecolor=RULE, linewidth=0.7)


def _present(description: StoreDescription) -> Mapping[SplitName, SplitDescription]:
    """The splits that hold anything."""
    return {split: each for split, each in description.splits.items() if each.utterances}
