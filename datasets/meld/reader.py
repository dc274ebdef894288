"""MELD from its published csv files: transcripts, labels and prosody joined by key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer_bench.data import community
from mer_bench.data.corpus import Corpus, Measurements, make_store
from mer_bench.data.dataset import Dataset, DatasetCard, PreparationRequest, SplitName, StoreContent
from mer_bench.data.prosody import PROSODY
from mer_bench.data.store import SPLITS
from mer_bench.data.tables import check_counts, read_table
from mer_bench.errors import DataError

BROKEN_CLIPS = {"train": ((125, 3),), "dev": ((110, 7),), "test": ()}
"""Dialogue and utterance number of the clips that are damaged, and so have no prosody."""

_CLIP = re.compile(r"dia(\d+)_utt(\d+)\.wav", re.ASCII)


@dataclass(frozen=True)
class Transcripts:
    """One split's `*_sent_emo.csv`, in the order of the file.

    Attributes:
        keys: Dialogue and utterance number of each utterance.
        labels: Class index of each utterance, by label set.
        speakers: Name of who speaks.
        lengths: Utterances of each dialogue.
    """

    keys: Sequence[tuple[int, int]]
    texts: Sequence[str]
    speakers: Sequence[str]
    labels: Mapping[str, Sequence[int]]
    lengths: Sequence[int]

    @property
    def dialogues(self) -> list[int]:
        """Number of each dialogue, in order."""
        return list(dict.fromkeys(dialogue for dialogue, _ in self.keys))


@dataclass(frozen=True)
class Prosody:
    """Measurements of one split, in the order of its utterances.

    Shapes:
        values: (utterances, 8), NaN where blank. present: (utterances,), False: there is no row.
    """

    values: NDArray[np.float64]
    present: NDArray[np.bool_]
    surplus_rows: int


class Meld(Dataset):
    """The MELD corpus."""

    def prepare(self, request: PreparationRequest) -> StoreContent:
        if community.is_release("meld", request.features):
            return make_store(self.release_corpus(request), self.card, request)
        return make_store(read_corpus(self.card, request), self.card, request)

    def examine(self, source: str, file: Path) -> None:
        for split in SPLITS:
            if source == transcripts_file(split):
                read_transcripts(file, split, self.card)
            elif source == prosody_file(split):
                _read_clips(file)

    def release_corpus(self, request: PreparationRequest) -> Corpus:
        return community.corpus_of("meld", self.card, request)

    def annotation(self, labels: str, raw: Path) -> Corpus | None:
        files = {split: raw / transcripts_file(split) for split in SPLITS}
        if not all(file.is_file() for file in files.values()):
            return None
        return corpus_of({split: read_transcripts(files[split], split, self.card) for split in SPLITS}, labels)


def transcripts_file(split: str) -> str:
    """Name of the source with a split's transcripts and labels."""
    return f"{split}_sent_emo.csv"


def prosody_file(split: str) -> str:
    """Name of the source with a split's prosody."""
    return f"meld_{split}_audio_features.csv"


def read_transcripts(file: Path, split: SplitName, card: DatasetCard) -> Transcripts:
    """Read one split's annotation.

    Raises:
        DataError: If it is damaged or its counts are not the published ones; names file, line and column.
    """
    table = read_table(file, ["Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"])
    texts = table.filled("Utterance")
    speakers = table.filled("Speaker")
    labels = {
        "emotion": table.choices("Emotion", card.label_sets["emotion"].classes),
        "sentiment": table.choices("Sentiment", card.label_sets["sentiment"].classes),
    }
    keys = list(zip(table.integers("Dialogue_ID"), table.integers("Utterance_ID"), strict=True))
    lengths: list[int] = []
    finished: set[int] = set()
    for row, (dialogue, utterance) in enumerate(keys):
        before = keys[row - 1] if row else None
        if before is None or dialogue != before[0]:
            if dialogue in finished:
                raise table.fault(row, "Dialogue_ID", f"dialogue {dialogue} goes on here after another began")
            finished.add(dialogue)
            lengths.append(0)
        elif utterance <= before[1]:
            raise table.fault(row, "Utterance_ID", f"should be above {before[1]}, but is {utterance}")
        lengths[-1] += 1
    published = card.counts["official"][split]
    check_counts(
        file,
        {"dialogues": len(lengths), "utterances": len(keys)},
        {"dialogues": published.dialogues, "utterances": published.utterances},
    )
    return Transcripts(keys, texts, speakers, labels, lengths)


def read_prosody(file: Path, split: SplitName, keys: Sequence[tuple[int, int]]) -> Prosody:
    """Read one split's prosody and join it to the utterances; rows of no utterance are counted.

    Raises:
        DataError: If it is damaged or an utterance has no row whose clip is not known to be broken.
    """
    rows, values = _read_clips(file)
    missing = [key for key in keys if key not in rows and key not in BROKEN_CLIPS[split]]
    if missing:
        dialogue, utterance = missing[0]
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"{file} has no row for dia{dialogue}_utt{utterance}.wav{more}. It may be cut off or another release; "
            "obtain it again."
        )
    present = np.array([key in rows for key in keys])
    joined = np.full((len(keys), len(PROSODY)), np.nan)
    joined[present] = values[[rows[key] for key in keys if key in rows]]
    return Prosody(joined, present, surplus_rows=len(rows) - int(present.sum()))


def _read_clips(file: Path) -> tuple[dict[tuple[int, int], int], NDArray[np.float64]]:
    """Row of each clip by dialogue and utterance number, and the values: (rows, 8)."""
    table = read_table(file, ["filename", *PROSODY])
    rows: dict[tuple[int, int], int] = {}
    for row, name in enumerate(table.texts("filename")):
        match = _CLIP.fullmatch(name)
        if not match:
            raise table.fault(row, "filename", f"should look like dia12_utt3.wav, but is '{name[:60]}'")
        key = (int(match[1]), int(match[2]))
        if key in rows:
            raise table.fault(row, "filename", f"{name} occurs twice")
        rows[key] = row
    return rows, np.array([table.numbers(column) for column in PROSODY]).T


def read_corpus(card: DatasetCard, request: PreparationRequest) -> Corpus:
    """The three splits with their prosody.

    Raises:
        DataError: If a file is damaged; names it.
    """
    splits = {split: read_transcripts(request.files[transcripts_file(split)], split, card) for split in SPLITS}
    prosody = {split: read_prosody(request.files[prosody_file(split)], split, splits[split].keys) for split in SPLITS}
    surplus = {split: prosody[split].surplus_rows for split in SPLITS}
    return replace(
        corpus_of(splits, request.labels),
        measurements={
            "audio": Measurements(
                values=np.concatenate([prosody[split].values for split in SPLITS]),
                present=np.concatenate([prosody[split].present for split in SPLITS]),
                source="Praat measurements",
                columns=PROSODY,
            )
        },
        notes={f"{split}: surplus prosody rows, ignored": count for split, count in surplus.items() if count},
    )


def corpus_of(splits: Mapping[SplitName, Transcripts], labels: str) -> Corpus:
    """The dialogues of the three splits with one annotation and nothing measured."""
    return Corpus(
        dialogue_ids=[f"{split}/dia{dialogue}" for split in SPLITS for dialogue in splits[split].dialogues],
        lengths=[length for split in SPLITS for length in splits[split].lengths],
        splits=[number for number, split in enumerate(SPLITS) for _ in splits[split].lengths],
        utterance_ids=[f"{split}/dia{key[0]}_utt{key[1]}" for split in SPLITS for key in splits[split].keys],
        speakers=[speaker for split in SPLITS for speaker in splits[split].speakers],
        labels=[label for split in SPLITS for label in splits[split].labels[labels]],
        texts=[text for split in SPLITS for text in splits[split].texts],
    )
