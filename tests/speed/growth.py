"""How the time of an epoch and the memory of a step grow: `python -m tests.speed.growth --out docs`.

For every registered model with the settings of its card, on random features: dialogues of 10 to 1000 utterances, 100 to
100,000 dialogues of ten, one to three modalities, and features 64 to 4096 wide. Each point is measured in a process of
its own by the trainer that runs use. A point that would take longer than `--seconds`, by what the smaller points of
that model took, is left out, and so is one that does not fit into `--memory`.

Written are `growth.csv`, a line a point, `growth-length.svg`, `growth-dialogues.svg` and `growth-width.svg`, and on the
screen the exponents for `growth.md`. `--models` measures some models and keeps the others' lines.
"""

from __future__ import annotations

import argparse
import csv
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from mer_bench import registry
from mer_bench.api import FittedModel, InputSpec, Split
from mer_bench.config import TrainerSettings
from mer_bench.errors import OutOfMemoryError
from mer_bench.metrics import METRICS
from mer_bench.trainer import Trainer

CLASSES = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
LENGTHS = (10, 30, 100, 300, 1000)
DIALOGUES = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
WIDTHS = (64, 256, 1024, 4096)
MODALITIES = (("text",), ("text", "audio"), ("text", "audio", "visual"))
BATCH = 8
SMALL = {"text": 64, "audio": 32, "visual": 24}
"""Widths of the features where it isn't they that grow."""


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        axis: What grows: `length`, `dialogues`, `modalities` or `width`. value: To what.
        cpu_seconds, wall_seconds: The quickest epoch of `epochs`; None where it does not fit or takes too long.
        memory_mb: The most that the process held in an epoch beyond what it held before, features apart.
    """

    model: str
    axis: str
    value: int
    dialogues: int
    length: int
    modalities: int
    width: int
    epochs: int = 0
    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    memory_mb: float | None = None
    note: str = ""


def points(model: str, most_modalities: int) -> Iterator[Point]:
    """What is to be measured of a model, the small ones first."""
    text = SMALL["text"]
    for length in LENGTHS:
        yield Point(model, "length", length, BATCH, length, min(2, most_modalities), text)
    for dialogues in DIALOGUES:
        yield Point(model, "dialogues", dialogues, dialogues, 10, min(2, most_modalities), text)
    for count in range(1, most_modalities + 1):
        yield Point(model, "modalities", count, 300, 10, count, text)
    for width in WIDTHS:
        yield Point(model, "width", width, 300, 10, min(2, most_modalities), width)


def split_of(point: Point, names: Sequence[str]) -> Split:
    """Random dialogues of one length with two speakers."""
    generator = torch.Generator().manual_seed(0)
    rows = point.dialogues * point.length
    widths = {name: point.width if point.axis == "width" else SMALL[name] for name in names}
    return Split(
        name="train",
        features={name: torch.randn(rows, width, generator=generator) for name, width in widths.items()},
        present={name: torch.ones(rows, dtype=torch.bool) for name in names},
        speakers=torch.arange(rows) % point.length % 2,
        offsets=torch.arange(0, rows + 1, point.length),
        labels=torch.randint(0, len(CLASSES), (rows,), generator=generator),
    )


def status(name: str) -> int:
    """A figure of this process in bytes: `VmRSS`, or since it was last forgotten `VmHWM`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def forget_peak() -> None:
    """Count the peak of this process from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def measured(point: Point, most_epochs: int, enough_seconds: float) -> Point:
    """Train for some epochs, in this process."""
    torch.set_num_threads(1)
    loaded = registry.load_model(point.model)
    names = modalities_of(point.model)[: point.modalities]
    given = loaded.plugin.card.settings_for("meld")
    values = {key: value for key, value in given.items() if key in loaded.settings_class.model_fields}
    split = split_of(point, names)
    spec = InputSpec({name: split.features[name].shape[1] for name in names}, CLASSES, 2)
    dev = split_of(Point(point.model, point.axis, 1, 1, 5, point.modalities, point.width), names)
    scores: Any = SimpleNamespace(**dict.fromkeys(METRICS, 0.5))
    is_fitted = issubclass(loaded.model_class, FittedModel)
    epochs = 1 if is_fitted else most_epochs
    training = TrainerSettings(epochs=epochs, patience=epochs, batch_size=BATCH if point.axis == "length" else 32)
    trainer = Trainer(
        lambda: loaded.model_class(spec, loaded.settings(values)), training, "weighted_f1", 0, torch.device("cpu")
    )
    clocks: list[tuple[float, float]] = []
    peaks: list[int] = []
    before = status("VmRSS")

    def tick(*_: Any) -> None:
        clocks.append((time.process_time(), time.perf_counter()))
        peaks.append(status("VmHWM"))
        forget_peak()
        spent = clocks[-1][0] - clocks[0][0]
        # The first epoch has things to do that later ones have not; in a long one they don't show.
        if spent > enough_seconds and (len(clocks) > 2 or spent > 1):
            raise StopIteration

    forget_peak()
    tick()
    with suppress(StopIteration):
        trainer.fit(split, dev, lambda _: scores, tick)
    spent = [(later[0] - earlier[0], later[1] - earlier[1]) for earlier, later in pairwise(clocks)]
    return replace_in(
        point,
        epochs=len(spent),
        cpu_seconds=round(min(each[0] for each in spent), 5),
        wall_seconds=round(min(each[1] for each in spent), 5),
        memory_mb=round((max(peaks[1:]) - before) / 1e6, 2),
    )


def replace_in(point: Point, **changes: Any) -> Point:
    """The point with some of its attributes changed."""
    return Point(**{**asdict(point), **changes})


def modalities_of(model: str) -> tuple[str, ...]:
    """What a model can take, of those there are."""
    card = registry.models().find(model).card
    return tuple(name for name in SMALL if name in card.modalities)


def in_a_child(point: Point, seconds: float, memory_bytes: int) -> Point:
    """The same in a process of its own, which has no more memory than told."""
    here, there = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + memory_bytes,) * 2)
        try:
            there.send(measured(point, 30, seconds / 10))
        except (OutOfMemoryError, MemoryError, RuntimeError) as error:
            there.send(replace_in(point, note=f"{type(error).__name__}: {str(error).splitlines()[0]}"))
        finally:
            there.close()
            os._exit(0)
    there.close()
    try:
        found: Point = here.recv()
    except EOFError:
        found = replace_in(point, note="the process died")
    os.waitpid(child, 0)
    return found


def of_model(
    model: str, seconds: float, memory_bytes: int, known: Sequence[Point] = (), axes: Sequence[str] | None = None
) -> Iterator[Point]:
    """Every point of a model; one that would take too long is left out with a note.

    Args:
        known: Measured before; taken as they are.
        axes: What may be measured anew; on others the known points alone count. None is every axis.
    """
    last: dict[str, Point] = {}
    there = {
        (point.axis, point.value): point
        for point in known
        if point.cpu_seconds is not None or (axes is not None and point.axis not in axes)
    }
    for point in points(model, len(modalities_of(model))):
        before = last.get(point.axis)
        expected = 0.0
        if before is not None and point.axis != "modalities":
            power = 1.5 if point.axis == "length" else 1
            taken = before.cpu_seconds if before.cpu_seconds is not None else math.inf
            expected = taken * (point.value / before.value) ** power
        if found := there.get((point.axis, point.value)):
            last[point.axis] = found
        elif expected > seconds:
            last[point.axis] = replace_in(point, note=f"left out: an epoch would take more than {seconds:g} s")
        else:
            last[point.axis] = in_a_child(point, seconds, memory_bytes)
        yield last[point.axis]


def exponent(found: Sequence[Point], figure: str, largest: int = 3) -> float | None:
    """Growth over the largest values, fitted by least squares of the logarithms: 1 is linear, 2 quadratic."""
    known = [(point.value, getattr(point, figure)) for point in found if getattr(point, figure)][-largest:]
    if len(known) < 2:
        return None
    values, figures = ([math.log(each) for each in column] for column in zip(*known, strict=True))
    return statistics.linear_regression(values, figures).slope


def read(file: Path) -> list[Point]:
    """The points of a table that was written before."""
    if not file.exists():
        return []
    kinds: dict[str, Any] = {}
    for each in fields(Point):
        base = str(each.type).split(" ")[0]
        kinds[each.name] = {"int": int, "float": float, "str": str}[base]
    with file.open(newline="") as stream:
        found = []
        for row in csv.DictReader(stream):
            cells: dict[str, Any] = {
                key: kinds[key](text) if text or kinds[key] is str else None for key, text in row.items()
            }
            found.append(Point(**cells))
        return found


def write(file: Path, found: Sequence[Point]) -> None:
    """All points as a table."""
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [each.name for each in fields(Point)], lineterminator="\n")
        writer.writeheader()
        for point in found:
            writer.writerow({key: "" if value is None else value for key, value in asdict(point).items()})


def by_model(found: Sequence[Point], axis: str) -> dict[str, list[Point]]:
    """The points on one axis, in rising order."""
    models = sorted({point.model for point in found})
    chosen = {
        model: sorted((p for p in found if (p.model, p.axis) == (model, axis)), key=lambda p: p.value)
        for model in models
    }
    return {model: line for model, line in chosen.items() if line}


def draw(file: Path, found: Sequence[Point], axis: str, label: str, guides: Sequence[int]) -> None:
    """A small picture a model, time and memory on the same logarithmic paper."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 8})
    lines = by_model(found, axis)
    columns = 5
    rows = -(-len(lines) // columns)
    figure, places = plt.subplots(rows, columns, figsize=(11, 1.9 * rows), sharex=True, squeeze=False)
    for place, (model, line) in zip(places.flat, lines.items(), strict=False):
        for name, colour, unit in (("cpu_seconds", "#2a6f97", "s"), ("memory_mb", "#b5651d", "MB")):
            known = [(p.value, getattr(p, name)) for p in line if getattr(p, name)]
            if not known:
                continue
            place.plot(*zip(*known, strict=True), marker="o", markersize=3, color=colour, linewidth=1.2)
            value, height = known[-1]
            place.annotate(f"{height:.3g} {unit}", (value, height), xytext=(3, 2), textcoords="offset points", size=6)
            for power in guides if name == "cpu_seconds" else ():
                first = known[0][0]
                place.plot(
                    [first, value], [height * (first / value) ** power, height], color="#999999", linewidth=0.6, ls=":"
                )
        place.set(title=model, xscale="log", yscale="log")
        place.title.set_size(8)
        place.margins(x=0.25)
        place.tick_params(labelsize=6)
    for place in places.flat[len(lines) :]:
        place.set_visible(False)
    powers = " and ".join({1: "linear", 2: "quadratic"}[power] for power in guides)
    figure.suptitle(f"CPU seconds of an epoch (blue) and MB of memory (brown) by {label}; dotted: {powers}", size=10)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def tell(found: Sequence[Point]) -> str:
    """The exponents of every model, as the table of `growth.md`."""
    lines = [
        "| model | time by length | last step | memory by length | time by dialogues | up to | time by width | 3 / 1 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    by_axis = {axis: by_model(found, axis) for axis in ("length", "dialogues", "width", "modalities")}
    for model, line in by_axis["length"].items():
        counted = [point.value for point in by_axis["dialogues"][model] if point.cpu_seconds]
        kinds = {point.value: point.cpu_seconds for point in by_axis["modalities"][model]}
        alone, together = kinds.get(1), kinds.get(3)
        share = together / alone if together and alone else None
        cells = [
            model,
            shown(exponent(line, "cpu_seconds")),
            shown(exponent(line, "cpu_seconds", 2)),
            shown(exponent(line, "memory_mb")),
            shown(exponent(by_axis["dialogues"][model], "cpu_seconds")),
            f"{max(counted):,}" if counted else "-",
            shown(exponent(by_axis["width"][model], "cpu_seconds")),
            shown(share),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write, draw and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="Folder of the table and the pictures.")
    parser.add_argument("--models", nargs="*", help="Only these; none: draw and tell what was measured before.")
    parser.add_argument("--seconds", type=float, default=10.0, help="The longest that an epoch may take.")
    parser.add_argument("--memory", type=int, default=4, help="GB that a point may take.")
    parser.add_argument("--axes", nargs="*", help="Measure only what lacks on these; with --keep.")
    parser.add_argument("--keep", action="store_true", help="Keep what the table has; measure only what it lacks.")
    given = parser.parse_args()
    import sklearn.linear_model  # noqa: F401 - else the first point of a model that needs it would be the import

    torch.set_num_threads(1)
    names = list(registry.models().plugins) if given.models is None else given.models
    for name in names:
        registry.load_model(name)
    table = given.out / "growth.csv"
    before = read(table)
    found = [point for point in before if point.model not in names]
    for name in names:
        known = [point for point in before if point.model == name] if given.keep else []
        for point in of_model(name, given.seconds, given.memory << 30, known, given.axes):
            found.append(point)
            seconds = "-" if point.cpu_seconds is None else f"{point.cpu_seconds:.4f} s"
            print(f"{name:17}{point.axis:11}{point.value:>7}  {seconds:>12}  {point.memory_mb} MB {point.note}")  # noqa: T201
            sys.stdout.flush()
        found.sort(key=lambda point: point.model)  # stable: the points of a model stay in order
        write(table, found)
    draw(given.out / "growth-length.svg", found, "length", "utterances a dialogue", (1, 2))
    draw(given.out / "growth-dialogues.svg", found, "dialogues", "number of dialogues", (1,))
    draw(given.out / "growth-width.svg", found, "width", "width of the features", (1,))
    print(tell(found))  # noqa: T201


if __name__ == "__main__":
    main()
