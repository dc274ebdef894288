"""A prepared store for other programs: dialogues as JSON lines, features as safetensors, and what they are.

dialogues.jsonl       one dialogue a line: {"id", "split", "utterances": [{"id", "speaker", "label", "text"}]}, and
                      "subsets", the named parts of the corpus that it belongs to, where the corpus has any;
                      speaker: index by first appearance; label: name of the class, null without one;
                      text: only where the corpus has texts
features.safetensors  for each modality `<modality>` (utterances, width) float32 and `<modality>.present`
                      (utterances,) bool; rows in the order of the utterances in dialogues.jsonl
manifest.json         dataset, licence, classes, counts, where it all comes from, checksums of the two files
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mer_bench import __version__
from mer_bench.atomic import flush_to_disk, remove, remove_abandoned, storage_errors, temporary_beside
from mer_bench.cards import DatasetCard
from mer_bench.data.files import sha256_of_file
from mer_bench.data.store import SPLITS, Store
from mer_bench.errors import RequestError

DIALOGUES = "dialogues.jsonl"
FEATURES = "features.safetensors"
MANIFEST = "manifest.json"

_LINE_ENDS = str.maketrans({character: f"\\u{ord(character):04x}" for character in "\x7f\x85\u2028\u2029"})
"""What some programs take for the end of a line, though JSON allows it inside a string."""


@dataclass(frozen=True)
class Exported:
    """What `export_store` wrote: the folder, and the size in bytes of each of its files by name."""

    folder: Path
    files: dict[str, int]


def check_target(folder: Path) -> None:
    """Check that nothing would be overwritten.

    Raises:
        RequestError: If there is a file of that name, or a folder that is not empty.
    """
    if folder.is_dir():
        with storage_errors(f"look into {folder}"):
            if any(folder.iterdir()):
                raise RequestError(f"{folder} is not empty; name a folder that does not exist yet.")
    elif folder.exists() or folder.is_symlink():
        raise RequestError(f"{folder} is there and no folder; name one that does not exist yet.")


def export_store(store: Store, card: DatasetCard, folder: Path) -> Exported:
    """Write a store so that any program reads it; the folder is there as a whole or not at all.

    Args:
        folder: Does not exist, or is empty.

    Raises:
        RequestError: If there is something in its place.
        DataError: If the store is damaged. StorageError: If it cannot be written; nothing is left behind.
    """
    import numpy as np
    from safetensors.numpy import save_file

    folder = folder.expanduser().resolve()
    check_target(folder)
    with storage_errors(f"write the export {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        unfinished = temporary_beside(folder)
        try:
            unfinished.mkdir()
            with (unfinished / DIALOGUES).open("w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(_lines(store))
            arrays = {name: store.arrays[f"features.{name}"] for name in store.widths}
            arrays |= {f"{name}.present": store.arrays[f"present.{name}"] for name in store.widths}
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, unfinished / FEATURES)
            # The library makes a file that only its owner may read; the others follow the user's habit.
            (unfinished / FEATURES).chmod((unfinished / DIALOGUES).stat().st_mode)
            told = _told(store, card, {name: sha256_of_file(unfinished / name) for name in (DIALOGUES, FEATURES)})
            (unfinished / MANIFEST).write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            files = {name: (unfinished / name).stat().st_size for name in (DIALOGUES, FEATURES, MANIFEST)}
            for name in files:
                flush_to_disk(unfinished / name)
            flush_to_disk(unfinished)
            _publish(unfinished, folder)
        finally:
            remove(unfinished)
    return Exported(folder, files)


def _publish(unfinished: Path, folder: Path) -> None:
    """Rename the finished folder to its place, where an empty one may stand."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            check_target(folder)
        raise
    unfinished.rename(folder)
    flush_to_disk(folder.parent)


def _lines(store: Store) -> Iterator[str]:
    """The dialogues of all splits, a line each."""
    for split in SPLITS:
        rows, utterances = store.rows(split)
        lengths = store.lengths(split).tolist()
        ids = store.identifiers(split)[0]
        names = [name.decode() for name in store.arrays["dialogue_ids"][rows].tolist()]
        speakers = store.arrays["speakers"][utterances].tolist()
        labels = store.arrays["labels"][utterances].tolist()
        texts = store.texts(split)
        subsets = {name: chosen.tolist() for name, chosen in store.subsets(split).items()}
        start = 0
        for place, (name, length) in enumerate(zip(names, lengths, strict=True)):
            spoken: list[dict[str, Any]] = []
            for row in range(start, start + length):
                label = store.classes[labels[row]] if labels[row] >= 0 else None
                utterance = {"id": ids[row], "speaker": speakers[row], "label": label}
                spoken.append(utterance if texts is None else {**utterance, "text": texts[row]})
            dialogue: dict[str, Any] = {"id": name, "split": split}
            if subsets:
                dialogue["subsets"] = [subset for subset, chosen in subsets.items() if chosen[place]]
            line = json.dumps({**dialogue, "utterances": spoken}, ensure_ascii=False)
            yield line.translate(_LINE_ENDS) + "\n"
            start += length


def _told(store: Store, card: DatasetCard, checksums: dict[str, str]) -> dict[str, Any]:
    """What the export is, as JSON values."""
    manifest = store.manifest
    features = card.feature_sets[manifest.features]
    return {
        "dataset": manifest.dataset,
        "title": card.title,
        "licence": card.licence,
        "redistribute": card.redistribute,
        "synthetic": card.synthetic,
        "homepage": card.homepage,
        "features": manifest.features,
        "feature_summary": features.summary,
        "label_supervised": features.label_supervised,
        "caveats": list(features.caveats),
        "labels": manifest.labels,
        "classes": list(manifest.classes),
        "protocol": manifest.protocol,
        "fold": manifest.fold,
        "widths": manifest.widths,
        "counts": {split: count.model_dump() for split, count in manifest.counts.items()},
        "subsets": {name: card.subsets[name].title if name in card.subsets else name for name in manifest.subsets},
        "sources": manifest.sources,
        "sources_checksum": manifest.sources_checksum,
        "store_checksum": manifest.store_checksum,
        "settings": manifest.settings,
        "notes": manifest.notes,
        "files": checksums,
        "version": __version__,
    }
