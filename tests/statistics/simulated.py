"""Made-up models on made-up dialogues, whose truth is known, and which vary as real ones do.

An utterance is predicted right where a sum of normal chances is above zero: of its dialogue and of itself, the same for
every model; of a model on the dialogue and on the utterance; of a seed as a whole and on the utterance. All models are
alike but for what `better` adds, so that models of the same `better` do not differ, however many dialogues and seeds
one looks at. The strengths give what the committed records of 21 models on MELD and 20 on IEMOCAP show:

                                        MELD              IEMOCAP
                                     records  here     records  here
mean weighted F1                      0.578  0.577      0.660  0.659
deviation between seeds               0.004  0.004      0.009  0.009
standard error of a mean              0.011  0.011      0.019  0.020
standard error of a difference        0.004  0.004      0.013  0.012
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mer_bench.predictions import DialogueCounts


@dataclass(frozen=True)
class Corpus:
    """What is drawn.

    Attributes:
        length, spread: Mean and deviation of the utterances of a dialogue.
        mixed: How alike the classes of dialogues are: the sum of a Dirichlet distribution's parameters.
        level: Of the sum of chances; decides the mean score.
        shared_dialogue, shared_utterance, dialogue, utterance, seed, noise: Deviations of the chances.
    """

    dialogues: int
    length: float
    spread: float
    shares: tuple[float, ...]
    mixed: float
    level: float
    shared_dialogue: float
    shared_utterance: float
    dialogue: float
    utterance: float
    seed: float
    noise: float

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple("abcdefgh"[: len(self.shares)])


MELD = Corpus(
    dialogues=280,
    length=9.3,
    spread=5.7,
    shares=(0.481, 0.108, 0.019, 0.08, 0.154, 0.026, 0.132),
    mixed=4,
    level=0.08,
    shared_dialogue=0.25,
    shared_utterance=1.2,
    dialogue=0.06,
    utterance=0.18,
    seed=0.006,
    noise=0.2,
)
IEMOCAP = Corpus(
    dialogues=31,
    length=52.4,
    spread=17.4,
    shares=(0.089, 0.151, 0.237, 0.105, 0.184, 0.234),
    mixed=2,
    level=0.43,
    shared_dialogue=0.25,
    shared_utterance=1.1,
    dialogue=0.14,
    utterance=0.35,
    seed=0.027,
    noise=0.3,
)


class Experiment:
    """One draw of dialogues; each call of `model` trains another model on it."""

    def __init__(self, corpus: Corpus, seed: int, dialogues: int | None = None) -> None:
        self.corpus = corpus
        self.generator = draw = np.random.default_rng(seed)
        self.dialogues = dialogues or corpus.dialogues
        shape = (corpus.length / corpus.spread) ** 2
        lengths = np.maximum(1, np.rint(draw.gamma(shape, corpus.length / shape, self.dialogues))).astype(int)
        self.dialogue = np.repeat(np.arange(self.dialogues), lengths)
        mixtures = draw.dirichlet(np.array(corpus.shares) * corpus.mixed, self.dialogues).cumsum(axis=1)
        place = draw.random((len(self.dialogue), 1))
        last = len(corpus.shares) - 1
        self.true = np.minimum((place > mixtures[self.dialogue]).sum(axis=1), last)
        # The more there is of a class, the more often it is predicted right.
        easy = 0.35 * np.log(np.array(corpus.shares) * len(corpus.shares))
        self.base = (
            corpus.level
            + easy[self.true]
            + draw.normal(0, corpus.shared_dialogue, self.dialogues)[self.dialogue]
            + draw.normal(0, corpus.shared_utterance, len(self.dialogue))
        )
        self.names = [f"d{number:05}" for number in range(self.dialogues)]

    def model(self, seeds: int, better: float = 0.0) -> list[DialogueCounts]:
        """Predictions of one model, one a seed, as counts."""
        corpus, draw = self.corpus, self.generator
        count = len(self.dialogue)
        ability = self.base + better
        ability = ability + draw.normal(0, corpus.dialogue, self.dialogues)[self.dialogue]
        ability = ability + draw.normal(0, corpus.utterance, count)
        runs = []
        for _ in range(seeds):
            right = ability + draw.normal(0, corpus.seed) + draw.normal(0, corpus.noise, count) > 0
            other = draw.choice(len(corpus.shares), count, p=corpus.shares)
            other = np.where(other == self.true, (other + 1) % len(corpus.shares), other)
            runs.append(self._counts(np.where(right, self.true, other)))
        return runs

    def _counts(self, predicted: NDArray[np.int64]) -> DialogueCounts:
        classes = len(self.corpus.shares)
        cells = (self.dialogue * classes + self.true) * classes + predicted
        confusion = np.bincount(cells, minlength=self.dialogues * classes**2).astype(np.int32)
        return DialogueCounts(
            self.corpus.classes,
            self.names,
            confusion.reshape(-1, classes, classes),
            np.zeros((self.dialogues, 2), np.int32),
            None,
        )
