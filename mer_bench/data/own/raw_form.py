"""The one form in which a user's dialogues are kept: dialogues.jsonl and features.safetensors.

`mer-bench data export` writes the same two files, so that what is exported can be imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mer_bench.atomic import flush_to_disk
from mer_bench.cards import DatasetCard
from mer_bench.data.corpus import Corpus, Measurements
from mer_bench.data.own.arrays import ABOUT_KEY, ALL_MODALITIES, PRESENT, FeatureArray
from mer_bench.data.own.dialogues import DEFAULT_LABEL, Dialogues
from mer_bench.data.own.folder import ArrayFile, Contents, OwnData, read_contents
from mer_bench.data.store import SPLITS

DIALOGUES, FEATURES = "dialogues.jsonl", "features.safetensors"


def write_raw(folder: Path, data: OwnData) -> list[Path]:
    """Write the raw files into a folder that is there; the same data give the same bytes.

    Raises:
        OSError: If they cannot be written.
    """
    from safetensors.numpy import save_file

    files = [folder / DIALOGUES]
    files[0].write_bytes(dialogues_bytes(data.dialogues))
    if data.arrays:
        tensors: dict[str, Any] = {}
        for modality, array in data.arrays.items():
            tensors[modality] = np.ascontiguousarray(array.values)
            tensors[modality + PRESENT] = np.ascontiguousarray(array.present)
        files.append(folder / FEATURES)
        save_file(tensors, files[1], metadata={ABOUT_KEY: _about(data.arrays)})
    for file in files:
        flush_to_disk(file)
    return files


def dialogues_bytes(dialogues: Dialogues) -> bytes:
    """JSON lines, a dialogue each."""
    keys = {name: DEFAULT_LABEL if len(dialogues.labels) == 1 else name for name in dialogues.labels}
    lines = []
    row = 0
    for index, length in enumerate(dialogues.lengths):
        utterances = []
        for place in range(row, row + length):
            each: dict[str, Any] = {"id": dialogues.utterance_ids[place], "speaker": dialogues.speakers[place]}
            for name, key in keys.items():
                label = dialogues.labels[name][place]
                each[key] = None if label < 0 else dialogues.classes[name][label]
            if dialogues.texts is not None and dialogues.texts[place]:
                each["text"] = dialogues.texts[place]
            utterances.append(each)
        row += length
        line: dict[str, Any] = {"id": dialogues.dialogue_ids[index], "split": SPLITS[dialogues.splits[index]]}
        if dialogues.subsets[index]:
            line["subsets"] = sorted(dialogues.subsets[index])
        lines.append(json.dumps({**line, "utterances": utterances}, ensure_ascii=False))
    return ("\n".join(lines) + "\n").encode()


def read_raw(files: Mapping[str, Path], card: DatasetCard) -> OwnData:
    """Read the raw files again.

    Args:
        files: Where each lies, by its name.

    Raises:
        DataError: If one is damaged; names it.
    """
    arrays = (ArrayFile(files[FEATURES], ALL_MODALITIES, None),) if FEATURES in files else ()
    contents = Contents(dialogues=((files[DIALOGUES], None),), arrays=arrays)
    classes = {name: labels.classes for name, labels in card.label_sets.items()}
    return read_contents(contents, classes, every_class_occurs=False)


def corpus_of(data: OwnData, card: DatasetCard, labels: str) -> Corpus:
    """The corpus of a label set."""
    dialogues = data.dialogues
    return Corpus(
        dialogue_ids=dialogues.dialogue_ids,
        lengths=dialogues.lengths,
        splits=dialogues.splits,
        utterance_ids=dialogues.utterance_ids,
        speakers=dialogues.speakers,
        labels=dialogues.labels[labels],
        texts=dialogues.texts,
        measurements={
            name: Measurements(
                # In float32 the mean of a constant column differs from it, and the rest would pass for features.
                values=array.values.astype(np.float64),
                present=array.present,
                source="arrays of the user",
                columns=array.columns,
                scaled=array.scaled,
            )
            for name, array in data.arrays.items()
        },
        subsets={
            name: np.array([name in subsets for subsets in dialogues.subsets], dtype=np.bool_) for name in card.subsets
        },
    )


def _about(arrays: Mapping[str, FeatureArray]) -> str:
    columns = {name: list(array.columns) for name, array in sorted(arrays.items()) if array.columns}
    return json.dumps({"columns": columns, "scaled": sorted(name for name, array in arrays.items() if array.scaled)})
