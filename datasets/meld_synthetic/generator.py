"""The generating model of meld-synthetic: who speaks, which emotion, and what is measured of it.

Everything random comes from numpy's PCG64 with fixed seeds, sums and products stand in a fixed order, and
features are rounded to a grid of 1/1024, so that every machine makes the same arrays. `reference.py` computes
how well a model that knows this file can do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mer_bench.data.store import SPLITS, StoreContent
from mer_bench.errors import DataError

SEED = 2019
"""Seed of the dialogues that `meld-synthetic` is made of."""

WORLD_SEED = 1905
"""Seed of what emotions look like in each modality; the same whatever the seed of the dialogues."""

VERSION = 1
"""Raised whenever the same seeds would give other arrays."""

CLASSES = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")

CLASS_SHARES = np.array([0.470, 0.120, 0.026, 0.073, 0.168, 0.026, 0.117])
"""Expected share of each class, at every position of every dialogue: those of all of MELD."""

REACTION = np.array(
    [
        [0.809, 0.039, 0.014, 0.031, 0.058, 0.008, 0.041],  # to neutral
        [0.111, 0.042, 0.062, 0.034, 0.634, 0.027, 0.090],  # to surprise: mostly joy
        [0.140, 0.160, 0.079, 0.513, 0.040, 0.011, 0.057],  # to fear: mostly sadness
        [0.507, 0.065, 0.047, 0.311, 0.029, 0.007, 0.034],  # to sadness: calm, or sadness too
        [0.151, 0.465, 0.006, 0.009, 0.345, 0.006, 0.018],  # to joy: surprise, or joy too
        [0.058, 0.134, 0.016, 0.036, 0.067, 0.028, 0.661],  # to disgust: anger
        [0.074, 0.056, 0.041, 0.135, 0.017, 0.141, 0.536],  # to anger: anger, disgust, sadness
    ]
)
"""Emotion with which a listener answers the emotion just heard; it leaves `CLASS_SHARES` as they are."""

MEMORY = 6
"""Turns for which a speaker's own last emotion counts."""

KEEP_OWN, REACT = 0.50, 0.42
"""Shares of keeping one's own last emotion and of reacting, when someone else spoke just before."""

KEEP_OWN_AT_ONCE = 0.80
"""Share of keeping one's emotion when speaking twice in a row."""

REACT_AFRESH = 0.75
"""Share of reacting for a speaker whose own past is too long ago or empty. The rest of each is `CLASS_SHARES`."""

WIDTHS = {"text": 64, "audio": 32, "visual": 24}

GROUPS = {
    "text": (0, 1, 2, 2, 1, 3, 3),
    "audio": (0, 1, 1, 0, 1, 0, 1),
    "visual": (0, 1, 2, 2, 1, 2, 2),
}
"""Which classes look alike: words by kind of feeling, voice by arousal, face by valence."""

GROUP_RADIUS = {"text": 1.9, "audio": 1.7, "visual": 1.6}
CLASS_RADIUS = {"text": 1.3, "audio": 0.9, "visual": 0.6}
"""Expected length of the vectors of groups and of classes; the noise has deviation 1 in each dimension."""

BLUNT = {"text": (0.35, 1.0), "audio": (0.30, 2.0), "visual": (0.45, 1.0)}
"""Share of utterances in which the modality tells nothing of the emotion (words that fit any, a noisy
recording, a hidden face), and the deviation of the noise there."""

MISSING = {"text": 0.005, "audio": 0.02, "visual": 0.12}
"""Share of utterances in which the modality is missing altogether."""

GRID = 1024

LENGTHS: tuple[dict[int, int], ...] = (
    {
        **{1: 70, 2: 60, 3: 54, 4: 48, 5: 67, 6: 61, 7: 74, 8: 67, 9: 50, 10: 57, 11: 55, 12: 54, 13: 36, 14: 41},
        **{15: 43, 16: 51, 17: 30, 18: 28, 19: 27, 20: 20, 21: 20, 22: 13, 23: 7, 24: 5},
    },
    {
        **{1: 6, 2: 4, 3: 7, 4: 4, 5: 9, 6: 8, 7: 4, 8: 7, 9: 5, 10: 8, 11: 13, 12: 8, 13: 6, 14: 5, 15: 3, 16: 2},
        **{17: 4, 19: 4, 20: 3, 21: 1, 22: 2, 23: 1},
    },
    {
        **{1: 12, 2: 17, 3: 17, 4: 17, 5: 25, 6: 21, 7: 11, 8: 16, 9: 22, 10: 17, 11: 11, 12: 17, 13: 12, 14: 11},
        **{15: 9, 16: 7, 17: 13, 18: 4, 19: 7, 20: 4, 21: 2, 22: 3, 23: 4, 33: 1},
    },
)
"""Dialogues of MELD by their number of utterances: train, dev, test."""

SPEAKERS: tuple[dict[int, int], ...] = (
    {1: 96, 2: 463, 3: 264, 4: 122, 5: 58, 6: 25, 7: 8, 8: 1, 9: 1},
    {1: 6, 2: 52, 3: 23, 4: 15, 5: 9, 6: 5, 7: 3, 8: 1},
    {1: 21, 2: 128, 3: 80, 4: 34, 5: 12, 6: 3, 7: 1, 8: 1},
)
"""Dialogues of MELD by their number of speakers: train, dev, test."""

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


def generate(dialogues: int | Sequence[int] | None = None, seed: int = SEED) -> StoreContent:
    """Dialogues drawn from the generating model.

    Args:
        dialogues: How many in train, dev and test (one number: so many in each). Lengths and numbers of
            speakers are then drawn from MELD's. None: exactly MELD's counts, lengths and speakers.
        seed: Of the dialogues. The same emotions look the same under any seed, so what is learned on the
            dialogues of one seed holds on those of another.

    Raises:
        DataError: If a split would be empty.
    """
    counts = _counts(dialogues)
    parts = [_split(index, None if counts is None else counts[index], seed) for index in range(len(SPLITS))]
    lengths = np.concatenate([part[0] for part in parts])
    return StoreContent(
        features={name: np.concatenate([part[3][name] for part in parts]) for name in WIDTHS},
        present={name: np.concatenate([part[4][name] for part in parts]) for name in WIDTHS},
        speakers=np.concatenate([part[1] for part in parts]).astype(np.int16),
        labels=np.concatenate([part[2] for part in parts]).astype(np.int16),
        utterance_ids=[
            f"{SPLITS[index]}-{dialogue}-{turn}"
            for index, part in enumerate(parts)
            for dialogue, length in enumerate(part[0].tolist())
            for turn in range(length)
        ],
        dialogue_ids=[
            f"{SPLITS[index]}-{dialogue}" for index, part in enumerate(parts) for dialogue in range(len(part[0]))
        ],
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        splits=np.repeat(np.arange(len(SPLITS)), [len(part[0]) for part in parts]).astype(np.uint8),
        classes=CLASSES,
        settings={
            "generator": "meld-synthetic",
            "generator_version": VERSION,
            "seed": seed,
            "world_seed": WORLD_SEED,
            "dialogues": "as published" if counts is None else list(counts),
        },
        notes={"synthetic": "every dialogue was generated; none was spoken by anybody"},
    )


def _counts(dialogues: int | Sequence[int] | None) -> tuple[int, ...] | None:
    if dialogues is None:
        return None
    counts = (dialogues,) * len(SPLITS) if isinstance(dialogues, int) else tuple(int(count) for count in dialogues)
    if len(counts) != len(SPLITS) or min(counts) < 1:
        raise DataError(f"each of {', '.join(SPLITS)} needs a dialogue or more, but {dialogues} were asked for.")
    return counts


def _split(
    index: int, count: int | None, seed: int
) -> tuple[Whole, Whole, Whole, dict[str, NDArray[np.float32]], dict[str, NDArray[np.bool_]]]:
    """Lengths, speakers, labels, features and presence of one split.

    Each purpose has random numbers of its own, so that the dialogues of one split do not depend on how many
    another has, and the emotions not on the widths of the modalities.
    """
    shape, turns, emotions, *senses = (
        np.random.Generator(np.random.PCG64(part)) for part in np.random.SeedSequence([seed, index]).spawn(6)
    )
    lengths, crowd = _lengths_and_crowds(index, count, shape)
    speakers = [_turns(int(length), int(people), turns) for length, people in zip(lengths, crowd, strict=True)]
    labels = np.concatenate([_emotions(who, emotions) for who in speakers])
    features, present = {}, {}
    for name, random in zip(WIDTHS, senses, strict=True):
        features[name], present[name] = _measure(name, labels, random)
    return lengths, np.concatenate(speakers), labels, features, present


def _lengths_and_crowds(index: int, count: int | None, random: np.random.Generator) -> tuple[Whole, Whole]:
    """Utterances and speakers of each dialogue; nobody is silent, so speakers never outnumber utterances."""
    lengths = np.repeat(list(LENGTHS[index]), list(LENGTHS[index].values()))
    people = np.repeat(list(SPEAKERS[index]), list(SPEAKERS[index].values()))
    if count is not None:
        lengths = lengths[(random.random(count) * len(lengths)).astype(np.int64)]
        people = people[(random.random(count) * len(people)).astype(np.int64)]
    order = np.argsort(random.random(len(lengths)), kind="stable")
    lengths = lengths[order]
    crowd = np.zeros(len(lengths), dtype=np.int64)
    # The largest crowds choose first among the dialogues that are long enough for them.
    for number in sorted(people.tolist(), reverse=True):
        free = np.flatnonzero(crowd == 0)
        roomy = free[lengths[free] >= number]
        chosen = roomy if len(roomy) else free
        place = chosen[int(random.random() * len(chosen))]
        crowd[place] = min(number, int(lengths[place]))
    return lengths, crowd


def _turns(length: int, people: int, random: np.random.Generator) -> Whole:
    """Who speaks: mostly an exchange between two, others joining in; numbered by first appearance."""
    said: list[int] = [0]
    joined = 1
    for turn in range(1, length):
        chance, pick = random.random(2).tolist()
        last = said[-1]
        waiting = people - joined
        if waiting >= length - turn or (waiting and chance < 0.25) or (waiting and joined == 1 and chance < 0.9):
            said.append(joined)
            joined += 1
        elif joined == 1 or chance < 0.32:
            said.append(last)
        elif chance < 0.75:
            said.append(next((who for who in reversed(said) if who != last), last))
        else:
            others = [who for who in range(joined) if who != last]
            said.append(others[int(pick * len(others))])
    return np.array(said, dtype=np.int64)


def own_past(speakers: Sequence[int], turn: int) -> int | None:
    """The turn at which the speaker of a turn last spoke, None if never or more than `MEMORY` turns ago."""
    for earlier in range(turn - 1, max(turn - 1 - MEMORY, -1), -1):
        if speakers[earlier] == speakers[turn]:
            return earlier
    return None


def emotion_shares(speakers: Sequence[int], turn: int) -> tuple[float, float]:
    """How much of a turn's emotion comes from the speaker's own last one and from the turn before.

    The remainder to 1 is drawn from `CLASS_SHARES`.
    """
    own = own_past(speakers, turn)
    if turn == 0:
        return 0.0, 0.0
    if own == turn - 1:
        return KEEP_OWN_AT_ONCE, 0.0
    if own is None:
        return 0.0, REACT_AFRESH
    return KEEP_OWN, REACT


def _emotions(speakers: Whole, random: np.random.Generator) -> Whole:
    who = speakers.tolist()
    heard = np.cumsum(REACTION, axis=1).tolist()
    base = np.cumsum(CLASS_SHARES).tolist()
    felt: list[int] = []
    for turn, (way, pick) in enumerate(random.random((len(who), 2)).tolist()):
        own, react = emotion_shares(who, turn)
        if way < own:
            past = own_past(who, turn)
            assert past is not None
            felt.append(felt[past])
        else:
            steps = heard[felt[-1]] if way < own + react else base
            felt.append(sum(pick >= step for step in steps[:-1]))
    return np.array(felt, dtype=np.int64)


def class_vectors(modality: str) -> Floats:
    """Centre of each class in a modality: (classes, width)."""
    place = list(WIDTHS).index(modality)
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([WORLD_SEED, place])))
    width = WIDTHS[modality]
    groups = random.standard_normal((max(GROUPS[modality]) + 1, width))
    own = random.standard_normal((len(CLASSES), width))
    scale = np.sqrt(width)
    centres = groups[list(GROUPS[modality])] * (GROUP_RADIUS[modality] / scale) + own * (CLASS_RADIUS[modality] / scale)
    rounded: Floats = np.rint(centres * GRID) / GRID
    return rounded


def _measure(
    modality: str, labels: Whole, random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Features and presence of one modality: the class's centre plus noise, or noise alone."""
    share, deviation = BLUNT[modality]
    chances = random.random((len(labels), 2))
    noise = random.standard_normal((len(labels), WIDTHS[modality]))
    blunt = (chances[:, 0] < share)[:, None]
    present = chances[:, 1] >= MISSING[modality]
    values = np.where(blunt, noise * deviation, class_vectors(modality)[labels] + noise)
    # The grid hides the last bits, which a machine's logarithm may change.
    rounded = np.rint(values * GRID) / GRID * present[:, None] + 0.0
    return rounded.astype(np.float32), present
