"""CMU-MOSI from the csv files of the bc-LSTM release, whose rows are joined to utterances by their order alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer_bench.data.corpus import Corpus, Measurements, make_store
from mer_bench.data.dataset import Dataset, DatasetCard, PreparationRequest, StoreContent
from mer_bench.data.store import SPLITS
from mer_bench.data.tables import Table, check_counts, read_rows
from mer_bench.errors import DataError

TRANSCRIPTS = "transcripts.csv"
PARTS = ("train", "test")
"""The two lists of the release."""

WIDTHS = {"text": 100, "audio": 73, "visual": 100}
FILES = {"text": "text", "audio": "audio", "visual": "video"}
"""What the release calls each modality."""

DEV_OF_TRAIN = slice(5, None, 6)
"""Protocol bclstm: the release's train videos that are dev, in the order of transcripts.csv: 6th, 12th, ..."""

DEV_OF_TEST = slice(2, None, 3)
"""Protocol unseen-dev: the release's test videos that are dev: 3rd, 6th, ..."""

SOURCES = {
    "text": "convolutional network of the release, fitted on the labels of its train videos",
    "audio": "openSMILE",
    "visual": "3D convolutional network of the release, fitted on the labels of its train videos",
}

_UTTERANCE = re.compile(r"(.+)_(\d+)", re.ASCII)
_SAME = 1e-9
"""Two files write the same text features with more and with fewer digits; they differ by 2e-16."""


@dataclass(frozen=True)
class Transcripts:
    """The table of all utterances, in the order of the file.

    Attributes:
        keys: Video and number of each utterance in its video.
        classes: 0 negative, 1 positive.
    """

    keys: Sequence[tuple[str, int]]
    texts: Sequence[str]
    classes: Sequence[int]


class CmuMosi(Dataset):
    """The CMU-MOSI corpus as the bc-LSTM release has it."""

    def prepare(self, request: PreparationRequest) -> StoreContent:
        return make_store(read_corpus(self.card, request), self.card, request)

    def examine(self, source: str, file: Path) -> None:
        if source == TRANSCRIPTS:
            read_transcripts(file, self.card)
        for part in PARTS:
            if source == order_file(part):
                read_order(file)
            for modality in WIDTHS:
                if source == features_file(modality, part):
                    read_features(file, modality)


def order_file(part: str) -> str:
    """Name of the source that tells which utterance each row of a part's other files is."""
    return f"text_{part}.csv"


def features_file(modality: str, part: str) -> str:
    """Name of the source with a modality's features of one part."""
    return f"{FILES[modality]}_{part}0.csv"


def read_transcripts(file: Path, card: DatasetCard) -> Transcripts:
    """Read the table of utterances: id, words, number of the video, class; it has no header.

    Raises:
        DataError: If it is damaged or holds fewer videos or utterances than published; names file, line and column.
    """
    table = read_rows(file, ("utterance", "words", "video", "class"))
    keys: list[tuple[str, int]] = []
    seen: set[tuple[str, int]] = set()
    for row, value in enumerate(table.texts("utterance")):
        match = _UTTERANCE.fullmatch(value)
        if not match:
            raise table.fault(row, "utterance", f"should look like 03bSnISJMiM_1, but is '{value[:60]}'")
        key = (match[1], int(match[2]))
        if key in seen:
            raise table.fault(row, "utterance", f"{value} occurs twice")
        seen.add(key)
        keys.append(key)
    transcripts = Transcripts(keys, table.filled("words"), table.choices("class", ("0", "1")))
    published = card.counts["bclstm"].values()
    check_counts(
        file,
        {"videos": len({video for video, _ in keys}), "utterances": len(keys)},
        {
            "videos": sum(count.dialogues for count in published),
            "utterances": sum(count.utterances for count in published),
        },
    )
    return transcripts


def read_order(file: Path) -> tuple[list[int], NDArray[np.float64]]:
    """Read which line of the transcripts, from 0, each row of a part is; and the text features beside it.

    Shapes:
        returns[1]: (rows, 100).

    Raises:
        DataError: If it is damaged or a line occurs twice; names file, line and column.
    """
    columns = _columns("text")
    table = read_rows(file, ("line", *columns))
    lines = table.integers("line")
    first: dict[int, int] = {}
    for row, line in enumerate(lines):
        if first.setdefault(line, row) != row:
            raise table.fault(row, "line", f"{line} occurs twice")
    return lines, _numbers(table, columns)


def read_features(file: Path, modality: str) -> tuple[NDArray[np.float64], list[int]]:
    """Read one modality of one part, and the class that stands behind the values.

    Shapes:
        returns[0]: (rows, width).

    Raises:
        DataError: If it is damaged; names file, line and column.
    """
    columns = _columns(modality)
    table = read_rows(file, (*columns, "class"))
    return _numbers(table, columns), table.choices("class", ("0", "1"))


def read_corpus(card: DatasetCard, request: PreparationRequest) -> Corpus:
    """All videos in the order of the transcripts, each with its utterances in the order of speech.

    Raises:
        DataError: If a file is damaged or two contradict each other; names them.
    """
    files = request.files
    transcripts = read_transcripts(files[TRANSCRIPTS], card)
    count = len(transcripts.keys)
    wanted = [name for name in WIDTHS if name != "text" or not card.feature_sets[request.features].text]
    values = {name: np.full((count, WIDTHS[name]), np.nan) for name in wanted}
    part_of: dict[int, str] = {}
    for part in PARTS:
        lines, text = read_order(files[order_file(part)])
        _join(files[order_file(part)], part, lines, transcripts, part_of)
        for modality in wanted:
            file = files[features_file(modality, part)]
            found, classes = read_features(file, modality)
            _expect_same_rows(file, files[order_file(part)], classes, [transcripts.classes[line] for line in lines])
            if modality == "text" and np.abs(found - text).max() > _SAME:
                raise DataError(f"{file} and {files[order_file(part)]} hold other text features; obtain both again.")
            values[modality][lines] = found
    if len(part_of) != count:
        line = next(line for line in range(count) if line not in part_of)
        raise DataError(
            f"{files[order_file('train')]} and {files[order_file('test')]} name {len(part_of)} of the {count} "
            f"utterances; {_id(transcripts.keys[line])} is in neither."
        )
    split_of = _splits(request.protocol, transcripts, part_of)
    videos = list(split_of)
    lengths = dict.fromkeys(videos, 0)
    for video, _ in transcripts.keys:
        lengths[video] += 1
    place = {video: number for number, video in enumerate(videos)}
    order = sorted(range(count), key=lambda line: (place[transcripts.keys[line][0]], transcripts.keys[line][1]))
    _check_splits(files[TRANSCRIPTS], card, request.protocol, lengths, split_of)
    return Corpus(
        dialogue_ids=videos,
        lengths=[lengths[video] for video in videos],
        splits=[split_of[video] for video in videos],
        utterance_ids=[_id(transcripts.keys[line]) for line in order],
        speakers=[0] * count,
        labels=[transcripts.classes[line] for line in order],
        # Case says nothing where all is in capitals, and encoders know the words in lower case.
        texts=[transcripts.texts[line].lower() for line in order],
        measurements={
            modality: Measurements(found[order], np.ones(count, dtype=np.bool_), SOURCES[modality])
            for modality, found in values.items()
        },
    )


def _join(file: Path, part: str, lines: list[int], transcripts: Transcripts, part_of: dict[int, str]) -> None:
    """Note the part of each line; a line and a video belong to one part alone."""
    part_of_video = {transcripts.keys[line][0]: other for line, other in part_of.items()}
    for row, line in enumerate(lines):
        if not 0 <= line < len(transcripts.keys):
            raise DataError(
                f"{file}, line {row + 1}: {line} is no line of {TRANSCRIPTS}, which has {len(transcripts.keys)} from 0."
            )
        video, _ = transcripts.keys[line]
        if part_of_video.setdefault(video, part) != part:
            raise DataError(
                f"{file}, line {row + 1}: the video {video} is in {order_file(part_of_video[video])} too; "
                "obtain both files again."
            )
        part_of[line] = part


def _expect_same_rows(file: Path, other: Path, found: list[int], expected: list[int]) -> None:
    if len(found) != len(expected):
        raise DataError(
            f"{file} has {len(found)} rows and {other} {len(expected)}, but both should be of the same utterances. "
            "One may be cut off; obtain both again."
        )
    for row, (one, two) in enumerate(zip(found, expected, strict=True)):
        if one != two:
            raise DataError(
                f"{file}, line {row + 1}, column class: is {one}, but {TRANSCRIPTS} says {two} of the utterance that "
                f"{other} has there. The files may be of two releases; obtain them again."
            )


def _splits(protocol: str, transcripts: Transcripts, part_of: dict[int, str]) -> dict[str, int]:
    """Index into SPLITS of each video."""
    videos = {transcripts.keys[line][0]: part_of[line] for line in range(len(transcripts.keys))}
    part = {name: [video for video, where in videos.items() if where == name] for name in PARTS}
    dev = set(part["train"][DEV_OF_TRAIN] if protocol == "bclstm" else part["test"][DEV_OF_TEST])
    return {video: SPLITS.index("dev" if video in dev else where) for video, where in videos.items()}


def _check_splits(
    file: Path, card: DatasetCard, protocol: str, lengths: dict[str, int], split_of: dict[str, int]
) -> None:
    for number, split in enumerate(SPLITS):
        here = [lengths[video] for video in lengths if split_of[video] == number]
        published = card.counts[protocol][split]
        check_counts(
            file,
            {f"{split} videos": len(here), f"{split} utterances": sum(here)},
            {f"{split} videos": published.dialogues, f"{split} utterances": published.utterances},
        )


def _columns(modality: str) -> tuple[str, ...]:
    return tuple(f"{modality} {number}" for number in range(1, WIDTHS[modality] + 1))


def _numbers(table: Table, columns: Sequence[str]) -> NDArray[np.float64]:
    """Columns of numbers none of which is blank: (rows, columns)."""
    values = np.array([table.numbers(column) for column in columns]).T.reshape(len(table), len(columns))
    for row, column in np.argwhere(np.isnan(values)).tolist()[:1]:
        raise table.fault(row, columns[column], "is blank")
    return values


def _id(key: tuple[str, int]) -> str:
    return f"{key[0]}_{key[1]}"
