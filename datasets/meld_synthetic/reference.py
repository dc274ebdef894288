"""How well a model that knows the generating model can do: the yardstick of meld-synthetic.

The posterior of every label is computed exactly, from the features alone: with the current utterance only, with
everything said before it, or with the whole dialogue (forward-backward over the last emotions of all speakers who
spoke within `MEMORY` turns). Predicting the likeliest label is the best that any model can do for accuracy, and
next to the best for weighted F1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mer_bench.data.store import SPLITS, StoreContent

from .generator import (
    BLUNT,
    CLASS_SHARES,
    CLASSES,
    MEMORY,
    REACTION,
    WIDTHS,
    class_vectors,
    emotion_shares,
    own_past,
)

Context = Literal["none", "past", "whole"]
Floats = NDArray[np.float64]

REFERENCES: Mapping[str, tuple[tuple[str, ...], Context]] = {
    "visual alone": (("visual",), "none"),
    "audio alone": (("audio",), "none"),
    "text alone": (("text",), "none"),
    "text and audio": (("text", "audio"), "none"),
    "text, audio and visual": (("text", "audio", "visual"), "none"),
    "audio and visual with the dialogue": (("audio", "visual"), "whole"),
    "text with the dialogue": (("text",), "whole"),
    "text and audio with the dialogue": (("text", "audio"), "whole"),
    "text, audio and visual with what came before": (("text", "audio", "visual"), "past"),
    "text, audio and visual with the dialogue": (("text", "audio", "visual"), "whole"),
}
"""What the README lists: name -> modalities seen and context used."""


@dataclass(frozen=True)
class Reference:
    """Scores of the best possible prediction, fractions in [0, 1]."""

    accuracy: float
    weighted_f1: float


def references(content: StoreContent, split: str = "test") -> dict[str, Reference]:
    """Scores of the best prediction for each entry of `REFERENCES` on one split of generated dialogues."""
    _, rows = _of_split(content, split)
    true = content.labels[rows].astype(np.int64)
    found = {}
    for name, (modalities, context) in REFERENCES.items():
        predicted = posteriors(content, split, modalities, context).argmax(axis=1)
        found[name] = Reference(float((predicted == true).mean()), _weighted_f1(true, predicted))
    return found


def posteriors(content: StoreContent, split: str, modalities: Sequence[str], context: Context) -> Floats:
    """Probability of each class for each utterance of a split: (utterances, classes)."""
    dialogues, rows = _of_split(content, split)
    evidence = np.ones((int(rows.stop) - int(rows.start), len(CLASSES)))
    for name in modalities:
        evidence = evidence * _likelihood(name, content.features[name][rows], content.present[name][rows])
    if context == "none":
        return _normalised(evidence * CLASS_SHARES)
    parts = []
    for dialogue in dialogues.tolist():
        start, end = content.offsets[dialogue : dialogue + 2].tolist()
        who = content.speakers[start:end].tolist()
        parts.append(_smoothed(who, evidence[start - rows.start : end - rows.start], context == "whole"))
    return np.concatenate(parts)


def _of_split(content: StoreContent, split: str) -> tuple[NDArray[np.int64], slice]:
    dialogues = np.flatnonzero(content.splits == SPLITS.index(split))
    return dialogues, slice(int(content.offsets[dialogues[0]]), int(content.offsets[dialogues[-1] + 1]))


def _likelihood(modality: str, values: NDArray[np.float32], present: NDArray[np.bool_]) -> Floats:
    """Density of the features under each class, up to a factor of the utterance; 1 where missing."""
    share, deviation = BLUNT[modality]
    exact = values.astype(np.float64)
    distance = ((exact[:, None, :] - class_vectors(modality)) ** 2).sum(axis=2)  # (utterances, classes)
    clear = np.log1p(-share) - distance / 2
    blunt = (
        np.log(share)
        - WIDTHS[modality] * np.log(deviation)
        - (exact**2).sum(axis=1, keepdims=True) / (2 * deviation**2)
    )
    logs = np.logaddexp(clear, blunt)
    likelihood: Floats = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.where(present[:, None], likelihood, 1.0)


def _smoothed(who: Sequence[int], evidence: Floats, whole: bool) -> Floats:
    """Posterior of each turn's emotion, given what came before it or the whole dialogue.

    The state after a turn holds the last emotions of the speakers whose past still counts for a later turn, one
    axis of `len(CLASSES)` a speaker, and of the speaker of the turn itself.
    """
    turns = len(who)
    # Turns whose emotion some later turn still looks at, after each turn.
    kept: list[tuple[int, ...]] = []
    for turn in range(turns):
        wanted = {turn}
        for later in range(turn + 1, min(turn + 1 + MEMORY, turns)):
            past = own_past(who, later)
            if past is not None and past <= turn:
                wanted.add(past)
        kept.append(tuple(sorted(wanted)))

    forward: list[Floats] = []
    links: list[tuple[Floats, tuple[int, ...]]] = []
    belief: Floats = np.ones(())
    axes: tuple[int, ...] = ()
    for turn in range(turns):
        link = _link(who, turn, axes)
        joint = belief[..., None] * link * evidence[turn]  # axes before the turn, then the turn's own
        every = (*axes, turn)
        gone = tuple(place for place, earlier in enumerate(every) if earlier not in kept[turn])
        links.append((link, every))
        belief = joint.sum(axis=gone)
        belief = belief / belief.sum()
        axes = tuple(earlier for earlier in every if earlier in kept[turn])
        forward.append(belief)

    found = np.zeros((turns, len(CLASSES)))
    backward: Floats = np.ones((len(CLASSES),) * len(kept[-1]))
    for turn in range(turns - 1, -1, -1):
        place = kept[turn].index(turn)
        both = forward[turn] * backward if whole else forward[turn]
        found[turn] = both.sum(axis=tuple(axis for axis in range(both.ndim) if axis != place))
        if turn == 0 or not whole:
            continue
        link, every = links[turn]
        spread = backward.reshape([len(CLASSES) if earlier in kept[turn] else 1 for earlier in every])
        backward = (link * evidence[turn] * spread).sum(axis=-1)
        backward = np.broadcast_to(backward, (len(CLASSES),) * len(kept[turn - 1])) / backward.max()
    return _normalised(found)


def _link(who: Sequence[int], turn: int, axes: tuple[int, ...]) -> Floats:
    """P(emotion of a turn | emotions of the earlier turns in `axes`), the turn's own axis last."""
    own, react = emotion_shares(who, turn)
    table = (1 - own - react) * CLASS_SHARES.reshape((1,) * len(axes) + (-1,))
    for share, matrix, earlier in ((own, np.eye(len(CLASSES)), own_past(who, turn)), (react, REACTION, turn - 1)):
        if share:
            assert earlier is not None
            shape = [1] * len(axes) + [len(CLASSES)]
            shape[axes.index(earlier)] = len(CLASSES)
            table = table + share * matrix.reshape(shape)
    return table


def _normalised(values: Floats) -> Floats:
    scaled: Floats = values / values.sum(axis=1, keepdims=True)
    return scaled


def _weighted_f1(true: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    total = 0.0
    for label in range(len(CLASSES)):
        support = int((true == label).sum())
        named = int((predicted == label).sum())
        if support:
            right = int(((true == label) & (predicted == label)).sum())
            total += support * 2 * right / (support + named)
    return total / len(true)


def table(scores: Mapping[str, Reference]) -> str:
    """The scores as the README's table rows."""
    return "\n".join(
        f"| {name} | {100 * score.accuracy:.1f} | {100 * score.weighted_f1:.1f} |" for name, score in scores.items()
    )


if __name__ == "__main__":
    from .generator import generate

    print(table(references(generate())))  # noqa: T201 - the module's only output
