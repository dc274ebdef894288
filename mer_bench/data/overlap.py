"""How much of dev and test was heard in train: utterances that stand there word for word.

Actors who play the same script in every session, or a serial's catch phrases, put the same words on both sides
of a split; whoever remembers train knows their label. What is counted are the scored utterances of
`FEWEST_WORDS` words or more, since short ones (`Yes.`, `Oh my God!`) recur in any conversation.

What counts as the same words is `spoken_words`. A non-speech tag such as `[LAUGHTER]` is transcribed like a word
and compared like one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from mer_bench.cards import SplitName

FEWEST_WORDS = 4
"""Utterances of fewer words are not counted."""

MEASURED: tuple[tuple[int, SplitName], ...] = ((1, "dev"), (2, "test"))

Count = Annotated[int, Field(ge=0)]


class Overlap(BaseModel):
    """Utterances of one split, in all or in one subset, that recur word for word.

    Attributes:
        subset: Name of the subset; "" for the whole split.
        compared: Labelled utterances of `FEWEST_WORDS` words or more.
        in_train: Those of them that a labelled utterance of train repeats.
        in_train_or_dev: Those that a labelled utterance of train or dev repeats; None for dev itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: SplitName
    subset: str = ""
    compared: Count
    in_train: Count
    in_train_or_dev: Count | None = None

    @property
    def share(self) -> float | None:
        """Fraction of the compared utterances that stand in train; None where none was compared."""
        return self.in_train / self.compared if self.compared else None

    @property
    def share_with_dev(self) -> float | None:
        """Fraction that stands in train or dev, as for a model that is trained on both."""
        if self.in_train_or_dev is None or not self.compared:
            return None
        return self.in_train_or_dev / self.compared


class _Spelling(dict[int, str]):
    """What becomes of each character; filled as characters are met.

    Letters, digits and marks stay. White space separates words. Punctuation, symbols and control characters
    vanish (`don't` becomes `dont`). Chinese and Japanese are written without spaces: there each character
    is a word.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)
        if character.isspace():
            kept = " "
        elif kind[0] in "PS" or kind in ("Cc", "Cf"):
            kept = ""
        elif unicodedata.name(character, "").startswith(("CJK UNIFIED", "HIRAGANA LETTER", "KATAKANA LETTER")):
            kept = f" {character} "
        else:
            kept = character
        self[code] = kept
        return kept


_SPELLING = _Spelling()


def spoken_words(text: str) -> list[str]:
    """The words of an utterance as they are compared: lower-case, composed (NFC), without punctuation."""
    return unicodedata.normalize("NFC", text.lower()).translate(_SPELLING).split()


def measure_overlap(
    texts: Sequence[str],
    labels: NDArray[np.integer[Any]],
    lengths: NDArray[np.integer[Any]],
    splits: NDArray[np.integer[Any]],
    subsets: Mapping[str, NDArray[np.bool_]],
) -> tuple[Overlap, ...]:
    """Count the scored utterances of dev and test that stand word for word in train.

    Args:
        subsets: Parts that are counted by themselves too, by name.

    Shapes:
        texts, labels: (utterances,); label -1: not scored, and not counted on either side.
        lengths, splits, subsets[name]: (dialogues,); split 0 is train, 1 dev, 2 test.
        returns: One entry for each of dev and test that has dialogues, in all and by subset.
    """
    split_of = np.repeat(np.asarray(splits), lengths)
    spoken = _long_and_labelled(texts, labels)
    is_compared = np.array([words is not None for words in spoken])
    in_train = _recurring(spoken, split_of == 0)
    in_either = in_train | _recurring(spoken, split_of == 1)
    parts = {"": np.ones(len(lengths), dtype=np.bool_), **subsets}
    found = []
    for number, split in MEASURED:
        for name, dialogues in parts.items():
            here = (split_of == number) & np.repeat(dialogues, lengths)
            if here.any():
                found.append(
                    Overlap(
                        split=split,
                        subset=name,
                        compared=int((here & is_compared).sum()),
                        in_train=int((here & in_train).sum()),
                        in_train_or_dev=None if split == "dev" else int((here & in_either).sum()),
                    )
                )
    return tuple(found)


def _long_and_labelled(texts: Sequence[str], labels: NDArray[np.integer[Any]]) -> list[str | None]:
    """Each utterance as it is compared; None for those that are not."""
    spoken: list[str | None] = []
    for text, label in zip(texts, labels.tolist(), strict=True):
        words = spoken_words(text) if label >= 0 else ()
        spoken.append(" ".join(words) if len(words) >= FEWEST_WORDS else None)
    return spoken


def _recurring(spoken: Sequence[str | None], among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which utterances are said in some chosen ones: (utterances,)."""
    said = set(compress(spoken, among.tolist())) - {None}
    return np.array([words in said for words in spoken], dtype=np.bool_)
