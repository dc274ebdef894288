"""The card of a user's own dataset: what the user says of it, and what an import adds from the data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from mer_bench.cards import (
    CardPart,
    DatasetCard,
    FeatureSet,
    Identifier,
    LabelSet,
    Modality,
    Paper,
    Protocol,
    Source,
    SplitCount,
    Subset,
    is_identifier,
    parse_card,
    read_card,
)
from mer_bench.data.own.dialogues import DEFAULT_LABEL, shown
from mer_bench.data.own.folder import OwnData
from mer_bench.data.store import SPLITS
from mer_bench.errors import CardError
from mer_bench.registry import OWN_ENTRY

USUAL_ORDER = ("text", "audio", "visual")
"""Modalities that models take, in the order in which cards list them."""

OFFICIAL = "official"
GIVEN = "given"

TEXT_SETS: Mapping[str, tuple[str, ...]] = {
    "transcripts": ("tfidf",),
    "transcripts-vectors": ("tfidf", "vectors"),
    "transcripts-textcnn": ("textcnn",),
    "transcripts-transformer": ("transformer",),
}
"""Feature sets that encode the texts, and with what."""

Pins = Mapping[str, tuple[int, str]]
"""Size and SHA-256 of each file of the raw form, by its name."""

ENCODERS = {
    "tfidf": "TF-IDF of word and character n-grams by truncated SVD, surface style, class scores of a linear model",
    "vectors": "the mean of the word vectors of a file that the user gives",
    "textcnn": "the dense layer of a convolutional network (Kim 2014) trained on the train labels",
    "transformer": "the mean over the tokens of the last four layers of a pre-trained transformer that the user names",
}

NEEDS = {"vectors": "vectors", "transformer": "transformer"}
"""Option of `data prepare` without which an encoder cannot run."""

TAKES = {"textcnn": "vectors"}
"""Option that an encoder can use and do without."""

TEXT_CAVEATS = {
    "tfidf": "Class scores come from a logistic regression fitted on train labels; train utterances get scores of a "
    "model that did not see their dialogue.",
    "vectors": "The numbers depend on the vectors file; its checksum is part of the store and of every record.",
    "textcnn": "The network was trained on the train labels, and the features of train come from the network that saw "
    "their labels, as in the field.",
    "transformer": "The numbers depend on the transformer; its name and revision, or its files' checksums, are part of "
    "the store.",
}

LABEL_SUPERVISED = {"tfidf", "textcnn"}
ARRAYS_CAVEAT = "The arrays are the user's; whether train labels, or test data, shaped them is not known here."


class StatedFeatures(CardPart):
    """What a user's card may say of a feature set; the rest follows from the data.

    Attributes:
        widths, sources, text, needs, takes: Made anew by every import; a card that an import wrote has them.
    """

    title: str = ""
    summary: str = ""
    modalities: tuple[Modality, ...] = ()
    label_supervised: bool | None = None
    caveats: tuple[str, ...] = ()
    widths: dict[str, int] = Field(default_factory=dict)
    sources: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


class StatedLabels(CardPart):
    """What a user's card says of a label set; without classes they are those that occur."""

    title: str = ""
    classes: tuple[str, ...] | None = None
    unlabelled: Annotated[str, Field(pattern="^(context|left out)$")] = "context"


class StatedCard(CardPart):
    """The card.toml of a folder that is imported: every key is optional, an unknown one an error.

    Attributes:
        entry, version, synthetic, counts, sources: Made anew by every import; a card that an import wrote has them.
    """

    title: str = ""
    summary: str = ""
    licence: str = ""
    homepage: str = ""
    redistribute: bool = False
    paper: Paper | None = None
    modalities: tuple[Modality, ...] = ()
    label_sets: dict[Identifier, StatedLabels] = Field(default_factory=dict)
    feature_sets: dict[Identifier, StatedFeatures] = Field(default_factory=dict)
    protocols: dict[Identifier, Protocol] = Field(default_factory=dict)
    subsets: dict[Identifier, Subset] = Field(default_factory=dict)
    traps: tuple[str, ...] = ()
    entry: str = OWN_ENTRY
    version: Annotated[int, Field(ge=1)] = 1
    synthetic: bool = False
    counts: dict[str, Any] = Field(default_factory=dict)
    sources: tuple[dict[str, Any], ...] = ()
    excused: dict[str, str] = Field(default_factory=dict)

    @property
    def classes(self) -> dict[str, tuple[str, ...] | None]:
        """Classes by label set; None: those that occur."""
        return {name: each.classes for name, each in self.label_sets.items()} or {DEFAULT_LABEL: None}


def read_stated(file: Path | None, manifest: Path | None = None) -> StatedCard:
    """What the user's card says; without one, what the manifest of an exported store says.

    Raises:
        CardError: If it is not TOML, has an unknown key, or asks for what an own dataset has not.
    """
    if file is None:
        return StatedCard() if manifest is None else _exported(manifest)
    stated = read_card(file, StatedCard)
    legal = (GIVEN, *TEXT_SETS)
    for name in stated.feature_sets:
        if name not in legal:
            raise CardError(f"{file}: no feature set is called '{name}'; the data give {', '.join(legal)}.")
    for name, protocol in stated.protocols.items():
        if name != OFFICIAL or protocol.folds:
            raise CardError(f"{file}: the one protocol of one's own dialogues is '{OFFICIAL}', without folds.")
    if stated.entry != OWN_ENTRY:
        raise CardError(f"{file}: entry is {stated.entry}, so this card belongs to a dataset with a reader of its own.")
    for name, labels in stated.label_sets.items():
        classes = labels.classes
        if classes is not None and (len(classes) < 2 or len(set(classes)) != len(classes) or not all(classes)):
            raise CardError(f"{file}: label_sets.{name}.classes should be two or more different names.")
    return stated


def is_export(file: Path) -> bool:
    """Whether a manifest.json is one that `mer-bench data export` wrote."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and {"dataset", "labels", "classes", "store_checksum"} <= set(values)


def _exported(file: Path) -> StatedCard:
    """What an export says of itself: above all the order of the classes, and whether it is made-up or supervised."""
    values = json.loads(file.read_text(encoding="utf-8"))
    origin = f"Exported by mer-bench from {values['dataset']}/{values.get('features', '')}."
    try:
        return StatedCard.model_validate(
            {
                "title": values.get("title", ""),
                "summary": origin,
                "licence": values.get("licence", ""),
                "homepage": values.get("homepage", ""),
                "redistribute": values.get("redistribute", False),
                "synthetic": values.get("synthetic", False),
                "label_sets": {values["labels"]: {"classes": values["classes"]}},
                "subsets": {
                    name: {"title": title, "summary": title} for name, title in values.get("subsets", {}).items()
                },
                "feature_sets": {
                    GIVEN: {
                        "label_supervised": values.get("label_supervised"),
                        "caveats": [origin, *values.get("caveats", ())],
                    }
                },
            }
        )
    except (ValidationError, AttributeError, TypeError) as error:
        raise CardError(f"{file} is not the manifest of an export: {str(error).splitlines()[0]}.") from None


def make_card(name: str, stated: StatedCard, data: OwnData, pins: Pins, version: int, split_note: str) -> DatasetCard:
    """The whole card of an own dataset.

    Args:
        split_note: How a random split was drawn, for the traps; "" where the user gave the splits.

    Raises:
        CardError: If the user's card speaks of modalities or subsets that the data lack.
    """
    dialogues = data.dialogues
    modalities = _modalities(stated, data)
    lengths = {
        split: [n for n, s in zip(dialogues.lengths, dialogues.splits, strict=True) if s == index]
        for index, split in enumerate(SPLITS)
    }
    subsets = stated.subsets
    for name_of_subset in sorted(set().union(*dialogues.subsets)):
        if name_of_subset in stated.subsets:
            continue
        if stated.subsets or not is_identifier(name_of_subset):
            raise CardError(
                f"a dialogue is in the subset {shown(name_of_subset)}, which the card should describe: "
                "[subsets.NAME], with title and summary, the name in lower-case letters, digits and hyphens."
            )
        subsets = {**subsets, name_of_subset: Subset(title=name_of_subset, summary="A part that the user named.")}
    traps = [*stated.traps, *([split_note] if split_note and split_note not in stated.traps else [])]
    return DatasetCard(
        title=stated.title or name,
        summary=stated.summary or "A user's own dialogues.",
        entry=OWN_ENTRY,
        version=version,
        licence=stated.licence or "not stated",
        homepage=stated.homepage,
        redistribute=stated.redistribute,
        synthetic=stated.synthetic,
        paper=stated.paper,
        modalities=modalities,
        label_sets={key: _label_set(key, stated, classes) for key, classes in dialogues.classes.items()},
        feature_sets=_feature_sets(stated, data, modalities, pins),
        protocols={
            OFFICIAL: stated.protocols.get(OFFICIAL)
            or Protocol(title="The user's train, dev and test split; the epoch is chosen on dev")
        },
        counts={
            OFFICIAL: {split: SplitCount(dialogues=len(each), utterances=sum(each)) for split, each in lengths.items()}
        },
        subsets=subsets,
        sources=tuple(
            Source(name=file, bytes=size, sha256=checksum, licence=stated.licence or "not stated")
            for file, (size, checksum) in pins.items()
        ),
        traps=tuple(traps),
        excused=stated.excused,
    )


def _modalities(stated: StatedCard, data: OwnData) -> tuple[str, ...]:
    """The card's order first, then the usual one, then by name."""
    there = set(data.arrays) | ({"text"} if data.dialogues.texts is not None else set())
    if not there:
        raise CardError("there is nothing to learn from: the dialogues have no text, and there is no feature array.")
    for modality in stated.modalities:
        if modality not in there:
            raise CardError(
                f"the card lists the modality {modality}, but no file holds it; there is {', '.join(sorted(there))}."
            )
    order = dict.fromkeys([*stated.modalities, *USUAL_ORDER, *sorted(there)])
    return tuple(modality for modality in order if modality in there)


def _label_set(key: str, stated: StatedCard, classes: tuple[str, ...]) -> LabelSet:
    told = stated.label_sets.get(key) or StatedLabels()
    title = told.title or ("Labels" if key == DEFAULT_LABEL else key.capitalize())
    return LabelSet.model_validate({"title": title, "classes": classes, "unlabelled": told.unlabelled})


def _feature_sets(stated: StatedCard, data: OwnData, modalities: Sequence[str], pins: Pins) -> dict[str, FeatureSet]:
    """`given`, with the arrays as they are; and those that encode the texts, where there are texts."""
    has_text = data.dialogues.texts is not None
    encoders: dict[str, tuple[str, ...]] = {
        GIVEN: TEXT_SETS["transcripts"] if has_text and "text" not in data.arrays else ()
    }
    if has_text:
        encoders |= TEXT_SETS
    found = {}
    for key, text in encoders.items():
        measured = [name for name in modalities if name in data.arrays and not (text and name == "text")]
        widths = {name: 0 for name in modalities if name in measured or (text and name == "text")}
        told = stated.feature_sets.get(key) or StatedFeatures()
        if told.widths and set(told.widths) != set(widths):
            # An earlier import wrote this, when there were other arrays.
            told = told.model_copy(update={"summary": "", "modalities": ()})
        parts = [f"{name.capitalize()}: {data.arrays[name].width} values as given." for name in measured]
        if text:
            parts.insert(0, f"Text: {' and '.join(ENCODERS[each] for each in text)}.")
        caveats = [
            *(TEXT_CAVEATS[each] for each in text),
            *([ARRAYS_CAVEAT] if measured else []),
            "All statistics come from the train split alone.",
        ]
        supervised = bool(LABEL_SUPERVISED & set(text))
        found[key] = FeatureSet(
            title=told.title or {GIVEN: "As given"}.get(key, key.replace("-", " with ").capitalize()),
            summary=told.summary or " ".join(parts),
            widths=widths,
            modalities=told.modalities,
            sources=tuple(pins),
            text=text,
            needs=tuple(NEEDS[each] for each in text if each in NEEDS),
            takes=tuple(TAKES[each] for each in text if each in TAKES),
            label_supervised=supervised if told.label_supervised is None else told.label_supervised,
            caveats=told.caveats or tuple(caveats),
        )
    return found


def card_text(card: DatasetCard) -> str:
    """A card as TOML; reading it gives the same card."""
    values = card.model_dump(mode="json", exclude_defaults=True)
    text = "# Written by `mer-bench data import`; change the card of the folder that you import, and import again.\n"
    text += "\n".join(_toml_table((), values)) + "\n"
    assert parse_card(text, DatasetCard, "the card") == card
    return text


def _toml_table(path: tuple[str, ...], values: Mapping[str, Any]) -> list[str]:
    """Lines of a table: its plain values, then the tables within it."""
    plain = {key: value for key, value in values.items() if not isinstance(value, dict) and not _is_tables(value)}
    lines = [f"{_toml_key(key)} = {_toml_value(value)}" for key, value in plain.items() if value is not None]
    for key, value in values.items():
        name = ".".join(map(_toml_key, (*path, key)))
        if isinstance(value, dict):
            # A table of nothing but tables is there as soon as they are.
            only_tables = bool(value) and all(isinstance(each, dict) for each in value.values())
            lines += [*([] if only_tables else ["", f"[{name}]"]), *_toml_table((*path, key), value)]
        elif _is_tables(value):
            for each in value:
                lines += ["", f"[[{name}]]", *_toml_table((*path, key), each)]
    return lines


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _toml_key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    # JSON's texts, numbers and truth values are TOML's too, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
