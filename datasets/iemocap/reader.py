"""IEMOCAP from four published files: all transcripts, prosody, the six-class set, and the dev dialogues.

The transcripts name every utterance (`Ses01F_impro01_F000`: session 1, recorded with the female actor's markers,
first improvisation, her first utterance); the six-class set says which of them count and in what order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer_bench.data import community
from mer_bench.data.corpus import Corpus, Measurements, make_store
from mer_bench.data.dataset import Dataset, PreparationRequest, StoreContent
from mer_bench.data.prosody import PROSODY
from mer_bench.data.restricted_pickle import load_restricted
from mer_bench.data.tables import Table, check_counts, read_table
from mer_bench.errors import DataError, SettingError

TRANSCRIPTS = "iemocap_full_dataset.csv"
PROSODY_TABLE = "iemocap_audio_features.csv"
SIX_CLASS_SET = "IEMOCAP_features_raw_6way.pkl"
DEV_DIALOGUES = "iemocap.pkl"
PARALINGUISTIC_TABLE = "paralinguistic.csv"

PARALINGUISTIC = (
    "log_pitch",
    "loudness",
    "hf500",
    "filled_pause",
    "filler",
    "stutter",
    "laughter",
    "audible_breath",
    "speech_correction",
    "turn_taking_time",
    "prolongation",
)
"""Columns of the paralinguistic table: three normalised by its author, five fractions of an utterance, three counts."""

MAJORITY = {"hap": 0, "sad": 1, "neu": 2, "ang": 3, "exc": 4, "fru": 5}
"""Majority emotion in the transcripts -> index in the six-class set."""

OTHER_EMOTIONS = ("xxx", "sur", "fea", "oth", "dis")
"""Majority emotions that the six-class set has no class for; xxx: the annotators did not agree."""

FOUR_OF_SIX = {0: 0, 1: 1, 2: 2, 3: 3, 4: 0}
"""Six-class index -> four-class index: happy with excited; frustrated has none."""

UTTERANCES = {"dialogues": 151, "utterances": 10039}
SIX_CLASS_COUNTS = {"dialogues": 151, "utterances": 7433}

_UTTERANCE = re.compile(r"((Ses0([1-5])[FM]_(?:impro|script)\d\w*?)_([FM])(\d{3}))", re.ASCII)


@dataclass(frozen=True)
class Utterance:
    """A row of the transcripts; `emotion` is the majority's, as in MAJORITY and OTHER_EMOTIONS."""

    dialogue: str
    session: int
    speaker: str
    text: str
    emotion: str


class Iemocap(Dataset):
    """The IEMOCAP corpus."""

    def prepare(self, request: PreparationRequest) -> StoreContent:
        is_release = community.is_release("iemocap", request.features)
        corpus = self.release_corpus(request) if is_release else read_corpus(request)
        return make_store(corpus, self.card, request)

    def release_corpus(self, request: PreparationRequest) -> Corpus:
        if request.labels.endswith("context"):
            raise SettingError(
                f"iemocap/{request.features} has the utterances of the six-class set alone, so labels "
                f"'{request.labels}' have no context to keep; ask for '{request.labels.removesuffix('-context')}'."
            )
        sources = self.card.feature_sets[request.features].sources
        split_of = read_split(request.files[DEV_DIALOGUES])
        if request.fold is not None:
            split_of = {dialogue: fold_of(dialogue, request.fold) for dialogue in split_of}
        corpus = community.corpus_of(
            "iemocap",
            self.card,
            request,
            files=[request.files[name] for name in sources if name != DEV_DIALOGUES],
            splits=split_of,
            # Four classes of a six-class release: what the four have no class for has no label.
            classes={"excited": "happy", "frustrated": None} if request.labels == "four" else None,
        )
        return replace(corpus, subsets=subsets_of(corpus.dialogue_ids))

    def annotation(self, labels: str, raw: Path) -> Corpus | None:
        files = {name: raw / name for name in (TRANSCRIPTS, SIX_CLASS_SET)}
        if labels != "six" or not all(file.is_file() for file in files.values()):
            return None
        utterances = read_transcripts(files[TRANSCRIPTS])
        order, six = read_six_class_set(files[SIX_CLASS_SET], utterances)
        names = [name for dialogue in order for name in order[dialogue]]
        return Corpus(
            dialogue_ids=list(order),
            lengths=[len(order[dialogue]) for dialogue in order],
            splits=[0] * len(order),
            utterance_ids=names,
            speakers=[utterances[name].speaker for name in names],
            labels=[six[name] for name in names],
            texts=[utterances[name].text for name in names],
        )

    def examine(self, source: str, file: Path) -> None:
        if source == TRANSCRIPTS:
            read_transcripts(file)
        elif source == PROSODY_TABLE:
            read_prosody(file)
        elif source == PARALINGUISTIC_TABLE:
            read_paralinguistic(file)


def read_transcripts(file: Path) -> dict[str, Utterance]:
    """Every utterance by its id, in the order of the file.

    Raises:
        DataError: If it is damaged or has not the published counts; names file, line and column.
    """
    table = read_table(file, ["emotion", "path", "text", "segment_id", "video_id", "gender"])
    emotions = (*MAJORITY, *OTHER_EMOTIONS)
    chosen = table.choices("emotion", emotions)
    found: dict[str, Utterance] = {}
    rows = zip(
        table.filled("path"), table.texts("text"), table.texts("video_id"), table.texts("gender"), chosen, strict=True
    )
    for row, (path, text, dialogue, gender, emotion) in enumerate(rows):
        name = path.rpartition("/")[2].removesuffix(".wav")
        match = _UTTERANCE.fullmatch(name)
        if not match or match[2] != dialogue or match[4] != gender:
            raise table.fault(row, "path", f"should end in an utterance of {dialogue} by {gender}, but is '{path}'")
        if name in found:
            raise table.fault(row, "path", f"{name} occurs twice")
        found[name] = Utterance(dialogue, int(match[3]), gender, text, emotions[emotion])
    dialogues = len({utterance.dialogue for utterance in found.values()})
    check_counts(file, {"dialogues": dialogues, "utterances": len(found)}, UTTERANCES)
    return found


def read_prosody(file: Path) -> dict[str, NDArray[np.float64]]:
    """The eight values of each utterance by its id; NaN where blank.

    Raises:
        DataError: If it is damaged; names file, line and column.
    """
    table = read_table(file, ["video_id", "segment_id", "gender", *PROSODY])
    keys = zip(table.filled("video_id"), table.filled("gender"), table.integers("segment_id"), strict=True)
    return _by_utterance(
        table, "segment_id", [f"{dialogue}_{speaker}{number:03}" for dialogue, speaker, number in keys], PROSODY
    )


def read_paralinguistic(file: Path) -> dict[str, NDArray[np.float64]]:
    """The eleven values of each utterance by its id, from a table with the columns `utterance` and PARALINGUISTIC.

    Raises:
        DataError: If it is damaged; names file, line and column.
    """
    table = read_table(file, ["utterance", *PARALINGUISTIC])
    return _by_utterance(table, "utterance", table.filled("utterance"), PARALINGUISTIC)


def _by_utterance(
    table: Table, key_column: str, names: Sequence[str], columns: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    found: dict[str, NDArray[np.float64]] = {}
    values = np.array([table.numbers(column) for column in columns]).T
    for row, name in enumerate(names):
        if not _UTTERANCE.fullmatch(name):
            raise table.fault(row, key_column, f"gives '{name[:60]}', which is no utterance of IEMOCAP")
        if name in found:
            raise table.fault(row, key_column, f"{name} occurs twice")
        found[name] = values[row]
    return found


def read_six_class_set(file: Path, utterances: Mapping[str, Utterance]) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Utterance ids of each dialogue in their released order, and the class index of each utterance.

    Raises:
        UnsafePickleError: If the file asks for anything but data.
        DataError: If it is damaged, of another layout, or disagrees with the transcripts.
    """
    fields = load_restricted(file)
    if not isinstance(fields, list | tuple) or len(fields) != 6 or not all(isinstance(f, dict) for f in fields[:4]):
        raise DataError(f"{file} should be one list of six fields that begins with four dicts by dialogue.")
    ids, labels = fields[0], fields[1]
    order: dict[str, list[str]] = {}
    index_of: dict[str, int] = {}
    for dialogue, names in ids.items():
        if not isinstance(names, list) or len(names) != len(labels.get(dialogue, ())):
            raise DataError(f"{file}: dialogue {dialogue} does not have one label for each utterance.")
        order[dialogue] = list(names)
        for name, label in zip(names, labels[dialogue], strict=True):
            known = utterances.get(name)
            if known is None or known.dialogue != dialogue:
                raise DataError(f"{file}: {name} in dialogue {dialogue} is no utterance of the transcripts.")
            majority = MAJORITY.get(known.emotion)
            # Happy alone was also given to utterances without a majority.
            if label != majority and not (known.emotion == "xxx" and label == MAJORITY["hap"]):
                raise DataError(f"{file}: the label of {name} is {label}, but its majority emotion is {known.emotion}.")
            index_of[name] = int(label)
    check_counts(file, {"dialogues": len(order), "utterances": len(index_of)}, SIX_CLASS_COUNTS)
    return order, index_of


def read_split(file: Path) -> dict[str, int]:
    """Split of each dialogue in the protocol cosmic: 0 train, 1 dev, 2 test.

    Raises:
        UnsafePickleError: If the file asks for anything but data.
        DataError: If its three lists do not hold every dialogue of the corpus once.
    """
    fields = load_restricted(file)
    lists = fields[3:] if isinstance(fields, list | tuple) else ()
    if len(lists) != 3 or not all(isinstance(names, list) for names in lists):
        raise DataError(f"{file} should be one list of six fields that ends in the train, test and dev dialogues.")
    train, test, dev = lists
    split_of = {**dict.fromkeys(train, 0), **dict.fromkeys(dev, 1), **dict.fromkeys(test, 2)}
    listed = len(train) + len(dev) + len(test)
    if len(split_of) != listed or listed != SIX_CLASS_COUNTS["dialogues"]:
        raise DataError(
            f"{file}: its lists of train, test and dev dialogues should hold each of {SIX_CLASS_COUNTS['dialogues']} "
            f"dialogues once, but hold {listed}, {len(split_of)} different ones."
        )
    return split_of


def session_of(dialogue: str) -> int:
    """Number of the session, 1 to 5, of a dialogue such as `Ses01F_impro01`."""
    return int(dialogue[4])


def fold_of(dialogue: str, fold: int) -> int:
    """Split of a dialogue in a fold of the protocol loso: 0 train, 1 dev, 2 test."""
    return {fold: 2, fold % 5 + 1: 1}.get(session_of(dialogue), 0)


def subsets_of(dialogues: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Which dialogues are scripted and which improvised, by their names: (dialogues,) each."""
    scripted = np.array(["_script" in dialogue for dialogue in dialogues])
    return {"scripted": scripted, "improvised": ~scripted}


def in_time(everything: Sequence[str], ordered: Sequence[str]) -> list[str]:
    """All utterances of a dialogue, with those whose order is known in that order.

    Ids count up within a speaker, so an utterance that is not in `ordered` lies between two known ones of the same
    speaker. Where among the other speaker's turns is not known: it is set evenly between them.
    """
    place = {name: float(position) for position, name in enumerate(ordered)}
    for speaker in "FM":
        own = sorted(name for name in everything if name[-4] == speaker)
        known = [-1, *(position for position, name in enumerate(own) if name in place), len(own)]
        bounds = [-1.0, *(place[own[position]] for position in known[1:-1]), float(len(ordered))]
        for gap in range(len(known) - 1):
            first, last = known[gap] + 1, known[gap + 1]
            step = (bounds[gap + 1] - bounds[gap]) / (last - first + 1)
            for offset, name in enumerate(own[first:last], start=1):
                place[name] = bounds[gap] + step * offset
    return sorted(everything, key=lambda name: (place[name], name))


def read_corpus(request: PreparationRequest) -> Corpus:
    """All dialogues with the labels, split and measurements that a request names.

    Raises:
        DataError: If a file is damaged or two disagree; names it.
    """
    utterances = read_transcripts(request.files[TRANSCRIPTS])
    order, six = read_six_class_set(request.files[SIX_CLASS_SET], utterances)
    labels = six
    if request.labels.startswith("four"):
        # The 53 that only the six-class set calls happy have no majority emotion.
        labels = {
            name: FOUR_OF_SIX[index]
            for name, index in six.items()
            if index in FOUR_OF_SIX and utterances[name].emotion != "xxx"
        }
    by_dialogue: dict[str, list[str]] = {}
    for name, utterance in utterances.items():
        by_dialogue.setdefault(utterance.dialogue, []).append(name)
    dialogues = sorted(by_dialogue)
    if request.fold is None:
        split_of = read_split(request.files[DEV_DIALOGUES])
        if unknown := set(dialogues) - set(split_of):
            raise DataError(f"{request.files[DEV_DIALOGUES]} does not say where dialogue {min(unknown)} belongs.")
    else:
        split_of = {dialogue: fold_of(dialogue, request.fold) for dialogue in dialogues}
    names = {dialogue: in_time(by_dialogue[dialogue], order[dialogue]) for dialogue in dialogues}
    rows = [name for dialogue in dialogues for name in names[dialogue]]
    return Corpus(
        dialogue_ids=dialogues,
        lengths=[len(names[dialogue]) for dialogue in dialogues],
        splits=[split_of[dialogue] for dialogue in dialogues],
        utterance_ids=rows,
        speakers=[utterances[name].speaker for name in rows],
        labels=[labels.get(name, -1) for name in rows],
        texts=[utterances[name].text for name in rows],
        measurements={"audio": _audio(request.files, rows)},
        subsets=subsets_of(dialogues),
    )


def _audio(files: Mapping[str, Path], rows: Sequence[str]) -> Measurements:
    """Prosody and, where its table is part of the feature set, the paralinguistic values."""
    prosody = read_prosody(files[PROSODY_TABLE])
    for name in rows:
        if name not in prosody:
            raise DataError(f"{files[PROSODY_TABLE]} has no row for {name}; obtain it again.")
    values = np.array([prosody[name] for name in rows])
    if PARALINGUISTIC_TABLE not in files:
        return Measurements(values, np.ones(len(rows), dtype=np.bool_), "Praat measurements", PROSODY)
    table = read_paralinguistic(files[PARALINGUISTIC_TABLE])
    if not any(name in table for name in rows):
        raise DataError(f"{files[PARALINGUISTIC_TABLE]} has not one utterance of IEMOCAP.")
    # An utterance without a row there is blank, not missing: its prosody is known.
    blank = np.full(len(PARALINGUISTIC), np.nan)
    more = np.array([table.get(name, blank) for name in rows])
    return Measurements(
        np.concatenate([values, more], axis=1),
        np.ones(len(rows), dtype=np.bool_),
        "Praat measurements, and the user's paralinguistic table",
        (*PROSODY, *PARALINGUISTIC),
    )
