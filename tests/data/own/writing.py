"""Any corpus, and writers of it in every form that an import reads: independent of the readers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Turn:
    utterance: str
    speaker: str
    label: str | None
    text: str


@dataclass(frozen=True)
class Talk:
    name: str
    split: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Given:
    """A small corpus in memory.

    Attributes:
        arrays: By modality, (utterances, width), NaN where blank and throughout a row that is missing.
    """

    talks: tuple[Talk, ...]
    classes: tuple[str, ...]
    arrays: Mapping[str, NDArray[np.floating[Any]]] = field(default_factory=dict)

    @property
    def turns(self) -> list[Turn]:
        return [turn for talk in self.talks for turn in talk.turns]

    def by_split(self) -> Given:
        """The talks of train first, then dev, then test: the order in which three files are put together."""
        rows, places = [], []
        start = 0
        for index, talk in enumerate(self.talks):
            places.append((SPLITS.index(talk.split), index, start, start + len(talk.turns)))
            start += len(talk.turns)
        places.sort()
        for _, _, begin, end in places:
            rows += list(range(begin, end))
        talks = tuple(self.talks[index] for _, index, _, _ in places)
        return replace(self, talks=talks, arrays={name: values[rows] for name, values in self.arrays.items()})


def flat_rows(given: Given, split: str | None = None) -> list[dict[str, Any]]:
    """A row an utterance; with a split only its own, without saying which."""
    return [
        {
            "dialogue": talk.name,
            "utterance": turn.utterance,
            "speaker": turn.speaker,
            "label": turn.label,
            "text": turn.text,
            **({"split": talk.split} if split is None else {}),
        }
        for talk in given.talks
        for turn in talk.turns
        if split in (None, talk.split)
    ]


def nested_rows(given: Given, split: str | None = None) -> list[dict[str, Any]]:
    return [
        {
            "id": talk.name,
            **({"split": talk.split} if split is None else {}),
            "utterances": [
                {
                    "id": turn.utterance,
                    "speaker": turn.speaker,
                    **({"label": turn.label} if turn.label is not None else {}),
                    **({"text": turn.text} if turn.text else {}),
                }
                for turn in talk.turns
            ],
        }
        for talk in given.talks
        if split in (None, talk.split)
    ]


def write_csv(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    # A mark at the beginning and CRLF, as spreadsheet programs write them.
    with file.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\r\n")
        writer.writeheader()
        writer.writerows([{key: "" if value is None else value for key, value in row.items()} for row in rows])


def write_jsonl(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n\n" for row in rows), encoding="utf-8")


def write_parquet(file: Path, columns: Mapping[str, Any]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), file)


def write_dialogues(folder: Path, given: Given, form: str, by_split: bool) -> None:
    for split in SPLITS if by_split else [None]:
        stem = split or "dialogues"
        if form == "nested":
            write_jsonl(folder / f"{stem}.jsonl", nested_rows(given, split))
            continue
        rows = flat_rows(given, split)
        if form == "jsonl":
            write_jsonl(folder / f"{stem}.jsonl", rows)
        elif form == "csv":
            write_csv(folder / f"{stem}.csv", rows)
        else:
            write_parquet(folder / f"{stem}.parquet", {key: [row[key] for row in rows] for key in rows[0]})


def save_npz(file: Path, arrays: Mapping[str, Any], compressed: bool = False) -> None:
    """`np.savez` with the arrays in a mapping, whose keys may be no Python names."""
    save: Any = np.savez_compressed if compressed else np.savez
    save(file, **arrays)


DIALOGUE_FORMS = ("nested", "jsonl", "csv", "parquet")


def _npy(file: Path, name: str, values: NDArray[Any], ids: list[str]) -> None:
    np.save(file.with_name(file.name + ".npy"), values)


def _npz(file: Path, name: str, values: NDArray[Any], ids: list[str]) -> None:
    save_npz(file.with_name(file.name + ".npz"), {name: values}, compressed=True)


def _npz_ids(file: Path, name: str, values: NDArray[Any], ids: list[str]) -> None:
    np.savez(file.with_name(file.name + ".npz"), values=values[::-1], ids=np.array(ids[::-1]))


def _npz_keyed(file: Path, name: str, values: NDArray[Any], ids: list[str]) -> None:
    save_npz(file.with_name(file.name + ".npz"), _present_only(values, ids))


def _safetensors(file: Path, name: str, values: NDArray[Any], ids: list[str]) -> None:
    from safetensors.numpy import save_file

    missing = np.isnan(values).all(axis=1)
    tensors = {name: np.where(missing[:, None], 7, values).astype(values.dtype), f"{name}.present": ~missing}
    save_file(tensors, file.with_name(file.name + ".safetensors"))


def _safetensors_keyed(file: Path, name: str, values: NDArray[Any], ids: list[str]) -> None:
    from safetensors.numpy import save_file

    save_file(_present_only(values, ids), file.with_name(file.name + ".safetensors"))


def _parquet_lists(file: Path, name: str, values: NDArray[Any], ids: list[str]) -> None:
    import pyarrow

    lists = [None if np.isnan(row).all() else row.tolist() for row in values]
    column = pyarrow.array(lists, pyarrow.list_(pyarrow.from_numpy_dtype(values.dtype)))
    write_parquet(file.with_name(file.name + ".parquet"), {"utterance": ids, "values": column})


def _parquet_columns(file: Path, name: str, values: NDArray[Any], ids: list[str]) -> None:
    columns = {f"c{index}": column for index, column in enumerate(values.T)}
    write_parquet(file.with_name(file.name + ".parquet"), columns)


def _present_only(values: NDArray[Any], ids: list[str]) -> dict[str, NDArray[Any]]:
    return {name: row.copy() for name, row in zip(ids, values, strict=True) if not np.isnan(row).all()}


ARRAY_FORMS: dict[str, Callable[[Path, str, NDArray[Any], list[str]], None]] = {
    "npy": _npy,
    "npz": _npz,
    "npz ids": _npz_ids,
    "npz keyed": _npz_keyed,
    "safetensors": _safetensors,
    "safetensors keyed": _safetensors_keyed,
    "parquet lists": _parquet_lists,
    "parquet columns": _parquet_columns,
}


def write_arrays(folder: Path, given: Given, form: str, by_split: bool) -> None:
    of_split = [talk.split for talk in given.talks for _ in talk.turns]
    ids = [turn.utterance for turn in given.turns]
    for name, values in given.arrays.items():
        for split in SPLITS if by_split else [None]:
            rows = [row for row, each in enumerate(of_split) if split in (None, each)]
            stem = f"{split}.{name}" if split else name
            ARRAY_FORMS[form](folder / stem, name, values[rows], [ids[row] for row in rows])


# What survives csv and JSON alike; a lone carriage return does too, and so do the separators of str.splitlines.
WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"),
    max_size=12,
)
NAMES = WORDS.map(str.strip).filter(bool)


@st.composite
def corpora(draw: st.DrawFn) -> Given:
    """Any small corpus whose splits all have a label, and whose arrays have a value in every train column."""
    classes = tuple(
        draw(st.lists(NAMES.filter(lambda name: not name.isnumeric()), min_size=2, max_size=3, unique=True))
    )
    counts = [draw(st.integers(1, 3)) for _ in SPLITS]
    splits = draw(st.permutations([split for split, count in zip(SPLITS, counts, strict=True) for _ in range(count)]))
    names = draw(st.lists(NAMES, min_size=len(splits), max_size=len(splits), unique=True))
    lengths = [draw(st.integers(1, 3)) for _ in splits]
    # npz keeps an array under the name of a file in an archive, where some characters cannot be.
    ids = draw(
        st.lists(
            st.from_regex(r"[A-Za-z0-9äß .-]{1,8}", fullmatch=True).filter(lambda name: name.strip() == name),
            min_size=sum(lengths),
            max_size=sum(lengths),
            unique=True,
        )
    )
    talks = []
    row = 0
    labelled: set[str] = set()
    for name, split, length in zip(names, splits, lengths, strict=True):
        turns = []
        for _ in range(length):
            label = draw(st.sampled_from([*classes, None]))
            if split not in labelled:  # the first of each split, so that all have some
                label = classes[len(labelled) % len(classes)]
                labelled.add(split)
            turns.append(Turn(ids[row], draw(NAMES), label, draw(WORDS)))
            row += 1
        talks.append(Talk(name, split, tuple(turns)))
    seed = draw(st.integers(0, 2**16))
    widths = draw(st.dictionaries(st.sampled_from(["text", "audio", "visual"]), st.integers(1, 3), max_size=2))
    kind = draw(st.sampled_from([np.float32, np.float64]))
    arrays = {name: random_array(len(ids), width, seed + width, kind) for name, width in widths.items()}
    of_split = np.array([split for split, length in zip(splits, lengths, strict=True) for _ in range(length)])
    for values in arrays.values():
        for split in SPLITS:
            first = int(np.flatnonzero(of_split == split)[0])
            values[first] = np.arange(values.shape[1]) + 1
    return Given(tuple(talks), classes, arrays)


def random_array(rows: int, width: int, seed: int, kind: Any = np.float64) -> NDArray[np.floating[Any]]:
    """Random values, some of them blank and some rows missing."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, width)).astype(kind)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[rng.random(rows) < 0.2] = np.nan
    return values
