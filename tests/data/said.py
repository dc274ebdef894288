"""Small corpora of texts whose words tell the label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer_bench.data.text.encoding import TrainTexts

PHRASE = "oh no! yes? I don't know... it's a great day! we love pizza, HE left so so sad what? you are mean"
WORDS = PHRASE.split()


def corpus(dialogues: int = 20, seed: int = 0) -> TrainTexts:
    """Texts of five words, three labels that the words tell, and five utterances a dialogue."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, 5)) for _ in range(5 * dialogues)]
    labels = np.array([0 if "!" in text else 1 if "?" in text else 2 for text in texts])
    return TrainTexts(texts, labels, np.repeat(np.arange(dialogues), 5), 3)


def table(width: int = 3) -> dict[str, NDArray[np.float32]]:
    """Vectors of a few words of the corpus, and of one that it does not have."""
    rng = np.random.default_rng(5)
    names = ["oh", "no", "!", "great", "day", "love", "zebra"]
    return {name: rng.normal(size=width).astype(np.float32) for name in names}


def vectors_file(folder: Path, width: int = 3) -> Path:
    """The same as a file."""
    file = folder / "vectors.txt"
    lines = [f"{name} {' '.join(map(repr, row.tolist()))}\n" for name, row in table(width).items()]
    file.write_text("".join(lines), encoding="utf-8")
    return file
