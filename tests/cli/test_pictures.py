"""Pictures of a store: written whole, the same bytes each time, and nothing in them covers anything else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mer_bench.cli.pictures import FORMATS, STYLE, draw_store, figure_of, picture_file, shares_text, shortened
from mer_bench.data.description import SplitDescription, StoreDescription, Tally
from mer_bench.data.store import SPLITS
from mer_bench.errors import RequestError, StorageError
from mer_bench.locations import StoreKey

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def described(classes: int = 3, longest: int = 12, speakers: int = 4, name: str = "class") -> StoreDescription:
    """A store of three splits that differ, the first class the most frequent."""
    names = tuple(f"{name} {number}" for number in range(classes))
    splits = {
        split: SplitDescription(
            dialogues=10 + place,
            utterances=100 * (place + 1),
            labelled=sum(range(1, classes + 1)),
            labels={each: classes - number for number, each in enumerate(names)},
            lengths=Tally({1: 2, max(longest - place, 1): 8}),
            speakers=Tally({1: 3, speakers: 7}),
            missing={"text": 0, "audio": 33 * place},
            overlap=None,
        )
        for place, split in enumerate(SPLITS)
    }
    return StoreDescription(StoreKey("made-up", "tiny", "mood", "official"), names, {"text": 2, "audio": 1}, splits, ())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_is_written_and_the_same_each_time(tmp_path: Path, kind: str) -> None:
    first, second = tmp_path / f"a.{kind}", tmp_path / "new folder" / f"b.{kind}"
    draw_store(described(), "Made up", first)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):  # a user's own matplotlibrc
        draw_store(described(), "Made up", second)
    assert first.read_bytes() == second.read_bytes()
    start = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml", "pdf": b"%PDF-"}[kind]
    assert first.read_bytes().startswith(start)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [first.name]
    draw_store(described(classes=4), "Made up", second)
    assert first.read_bytes() != second.read_bytes()


def drawn(description: StoreDescription) -> tuple[Any, Any]:
    """The figure, laid out, and what measures it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = figure_of(description, "Made up")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return figure, canvas.get_renderer()


@pytest.mark.parametrize(("classes", "longest", "speakers"), [(2, 63, 1), (7, 33, 9), (14, 400, 30), (3, 1, 14)])
def test_nothing_covers_anything_else(classes: int, longest: int, speakers: int) -> None:
    figure, renderer = drawn(described(classes, longest, speakers))
    boxes = [axes.get_window_extent(renderer) for axes in figure.axes]
    names = [label.get_window_extent(renderer) for axes in figure.axes for label in axes.get_yticklabels()]
    titles = [axes.title.get_window_extent(renderer) for axes in figure.axes]
    titles += [axes._left_title.get_window_extent(renderer) for axes in figure.axes if axes._left_title.get_text()]
    for legend in figure.legends:
        extent = legend.get_window_extent(renderer)
        assert not any(extent.overlaps(other) for other in [*boxes, *titles])
        assert figure.bbox.x1 >= extent.x1
    for axes in figure.axes[1:3]:
        legend = axes.get_legend().get_window_extent(renderer)
        inside = [patch.get_window_extent(renderer) for patch in axes.patches]
        highest = max(part.y1 for part in inside if part.height > 0)
        assert highest < legend.y0
    percents = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    for index, one in enumerate(percents):
        assert not any(one.overlaps(other) for other in percents[index + 1 :])
        assert one.x1 <= boxes[0].x1
    assert all(figure.bbox.x0 <= name.x0 for name in names)


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    draw_store(described(name="$a_b$ \\frac{x}"), "100 % & <b>", tmp_path / "a.svg")
    figure, _ = drawn(described(name="a class with a very long name indeed"))
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown[0] == "a class with a very long na…"
    assert shortened("short") == "short"


def test_how_a_share_is_written() -> None:
    told = [shares_text(part, 10_000_000) for part in (0, 1, 1_000, 20_000, 900_000, 1_500_000, 10_000_000)]
    assert told == [
        "none",
        "1 (< 0.01 %)",
        "1000 (0.01 %)",
        "20000 (0.2 %)",
        "900000 (9.0 %)",
        "1500000 (15 %)",
        "10000000 (100 %)",
    ]


def test_where_a_picture_goes(tmp_path: Path) -> None:
    assert picture_file(tmp_path, "meld-transcripts") == tmp_path / "meld-transcripts.png"
    assert picture_file(tmp_path / "x.PDF", "meld") == tmp_path / "x.PDF"
    for wrong in ("x.jpg", "x", "folder/"):
        with pytest.raises(RequestError, match=r"a picture ends in \.png, \.svg or \.pdf, but --plot names"):
            picture_file(tmp_path / wrong, "meld")


def test_matplotlib_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RequestError, match=r"pip install 'mer-bench\[plot\]'"):
        draw_store(described(), "Made up", tmp_path / "a.png")


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        draw_store(described(), "Made up", tmp_path / "file" / "a.png")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
