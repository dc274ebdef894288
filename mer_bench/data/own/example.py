"""A folder to start from: a card in which every key is explained, a few dialogues, and what goes where."""

from __future__ import annotations

import json
from pathlib import Path

from mer_bench.atomic import write_files_atomically
from mer_bench.errors import RequestError

CLASSES = ("neutral", "joy", "anger")

_CARD = """\
# What a dataset is. Every key may be left out, and an unknown one is an error.
# `mer-bench data import {name} --from FOLDER` reads this file, checks it against the data, and adds what follows
# from them: counts, widths, checksums.

title   = "{title}"                     # as it stands in a table
summary = "Made-up talks over a kitchen table; an example to be replaced."   # one sentence

licence  = "not stated"                 # whose the dialogues are, and what others may do with them
homepage = ""                           # where their owner publishes them
redistribute = false                    # true: committed results may hold the label of each utterance
synthetic = true                        # made-up dialogues, as these are; take it out for real ones

# Known faults and surprises, one sentence each: whoever compares models should know them.
traps = [
    "Made up: scores on these dialogues mean nothing.",
]

# The order in which modalities are listed; left out: text, audio, visual, then the others by name.
# modalities = ["text", "audio", "visual"]

# Which annotation is predicted. `label` is read from the column `label`. With several label sets, each is read
# from the column of its own name, and the first is the default.
[label_sets.label]
title      = "Three emotions"
classes    = ["neutral", "joy", "anger"]   # in the order of their numbers: 0, 1, 2; left out: those that occur
unlabelled = "context"                  # utterances without a label: "context" of the others, or "left out"

# Where the dialogues are published.
# [paper]
# title   = "..."
# authors = "..."
# venue   = "..."
# year    = 2025
# url     = "https://..."

# What a reader of a table must know of your feature arrays.
# [feature_sets.given]
# summary          = "Audio: 88 eGeMAPS values of openSMILE."
# label_supervised = false              # true: train labels shaped the arrays
# caveats          = ["..."]

# How the epoch is chosen on dev, and what ranks a leaderboard: see mer-bench list metrics
# [protocols.official]
# title     = "Our split by recording session"
# selection = "weighted_f1"
# headline  = "weighted_f1"

# Parts that are scored by themselves too; a dialogue names its parts: "subsets": ["phone"]
# [subsets.phone]
# title   = "Phone calls"
# summary = "Dialogues that were held on the phone."
"""

_README = """\
# {title}

To be replaced: the dialogues here are made up. Bring this folder, or any of its form, to mer-bench with

    mer-bench data import {name} --from .

which checks everything, says what it found, and names file, line and column of the first thing that is wrong.
After a change, import again.

## Dialogues

One of these, in UTF-8:

- `dialogues.jsonl`, a dialogue a line, as here:
  `{{"id": "d1", "split": "train", "utterances": [{{"speaker": "Ada", "label": "joy", "text": "It works!"}}]}}`
- `dialogues.jsonl`, `dialogues.csv` or `dialogues.parquet`, an utterance a row, in the order in which they were
  said, those of a dialogue together. Columns: `dialogue`, `speaker`, `label`, and where there are such `utterance`
  (its id), `text`, `split`.
- three files of either form, `train.*`, `dev.*` and `test.*`, instead of a split in each row or dialogue.

A split is `train`, `dev` (or `val`, `valid`, `validation`) or `test`. Where there is none, a random one is drawn by
dialogue if you ask for it: `--split 80/10/10 --seed 0`. A label is the name of a class or its number in the card; an
utterance with a blank label (`null`) is context of the others and is not scored.

## Features

Optional where there are texts: a file for each modality, named after it, with a row of numbers for each utterance.
Models take `text`, `audio` and `visual`.

| file | rows |
| --- | --- |
| `audio.npy` | in the order of the utterances |
| `audio.npz` | `values` in that order; or `values` with `ids`; or an array for each utterance id |
| `audio.safetensors` | `audio` in that order; or an array for each utterance id |
| `audio.parquet` | columns of numbers, or one of lists, in that order or with a column `utterance` |
| `features.safetensors`, `features.npz` | `<modality>` and `<modality>.present` of several modalities |

Each split may have a file: `train.audio.npy`, `dev.audio.npy`, `test.audio.npy`. An utterance without an id of its own
is called by its dialogue and its number from 1: `d1/1`. NaN is a blank value; an utterance that is absent from the
file, or whose row is NaN throughout, lacks the modality. `audio.present.npy` may say so too, with 0 and 1.
Values are scaled by what train holds; no need to do so before.
"""

_TALKS = {
    "train": (
        (("Ada", "joy", "It works, it works!"), ("Ben", "neutral", "What does?"), ("Ada", "joy", "The kettle!")),
        (("Ben", "anger", "Who ate my bread again?"), ("Ada", "neutral", "The bread on the table?")),
        (("Cleo", "neutral", "The bus leaves at nine."), ("Ada", "joy", "Lovely, we have time for tea!")),
        (("Ben", "neutral", "The bread is on the table."), ("Cleo", "anger", "It is hard as a stone!"), ("Ben", None, "Hm.")),  # noqa: E501
        (("Ada", "joy", "You came, how lovely!"), ("Cleo", "joy", "I would not miss your tea!")),
        (("Cleo", "anger", "The bus left without us!"), ("Ben", "neutral", "The next one leaves at ten.")),
    ),
    "dev": (
        (("Ben", "neutral", "The kettle is on the table."), ("Ada", "joy", "Lovely!")),
        (("Cleo", "anger", "Who left the kettle on again?"), ("Ben", "neutral", "It was me.")),
    ),
    "test": (
        (("Ada", "neutral", "When does the bus leave?"), ("Cleo", "anger", "It left again without us!")),
        (("Ben", "joy", "The tea is lovely!"), ("Ada", "neutral", "It is on the table.")),
    ),
}  # fmt: skip


def write_example(name: str, folder: Path) -> list[Path]:
    """Write the folder as a whole or not at all.

    Raises:
        RequestError: If there is something in its place.
        StorageError: If it cannot be written.
    """
    folder = folder.expanduser()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RequestError(f"{folder} is there already; name another folder with --folder.")
    title = name.replace("-", " ").capitalize()
    texts = {
        "card.toml": _CARD.format(name=name, title=title),
        "dialogues.jsonl": _dialogues(),
        "README.md": _README.format(name=name, title=title),
    }
    write_files_atomically(folder, {folder / file: text for file, text in texts.items()})
    return [folder / file for file in texts]


def _dialogues() -> str:
    lines = []
    for split, talks in _TALKS.items():
        for number, talk in enumerate(talks, 1):
            utterances = [{"speaker": speaker, "label": label, "text": text} for speaker, label, text in talk]
            line = {"id": f"{split}-{number}", "split": split, "utterances": utterances}
            lines.append(json.dumps(line, ensure_ascii=False))
    return "\n".join(lines) + "\n"
