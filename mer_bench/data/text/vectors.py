"""The mean of an utterance's word vectors, in which rare words weigh more than common ones.

    v(text) = sum over its tokens of idf(t) v(t) / sum over its tokens of idf(t)
    idf(t)  = ln((1 + n) / (1 + utterances with t)) + 1, over the n train utterances

Tokens that have no vector, or that no train utterance has, are passed over: nothing is known of how common
they are. So what is learnt needs the vectors of train's words alone; they are kept with the store, and new
dialogues are encoded without the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mer_bench.config import Settings
from mer_bench.data.text.encoding import (
    Arrays,
    Features,
    Floats,
    TextEncoder,
    TrainTexts,
    mean_and_deviation,
    option,
)
from mer_bench.data.text.tokens import normalise, vector_tokens
from mer_bench.data.text.word_vectors import read_vectors


class VectorsSettings(Settings):
    """How word vectors are averaged.

    Attributes:
        weighting: `idf`, or `none`: every token counts alike.
    """

    weighting: Literal["idf", "none"] = "idf"


@dataclass(frozen=True)
class VectorsEncoder(TextEncoder):
    """A fitted mean of word vectors, each column brought to mean 0 and deviation 1; zero without a known token.

    Attributes:
        row_of: Row of each known word in the arrays `vectors` (words, width) and `idf` (words,).
        sha256: Of the file.
    """

    settings: VectorsSettings
    row_of: Mapping[str, int]
    arrays: Mapping[str, NDArray[Any]]
    sha256: str

    @classmethod
    def fit(
        cls, train: TrainTexts, options: Mapping[str, Any], settings: VectorsSettings | None = None
    ) -> tuple[VectorsEncoder, Features]:
        file = Path(option(options, "vectors", "a file of word vectors"))
        spoken = [vector_tokens(normalise(text)) for text in train.texts]
        texts_with = Counter(token for said in spoken for token in set(said))
        table = read_vectors(file, texts_with)
        words = sorted(table.vectors)
        counts = np.array([texts_with[word] for word in words])
        arrays: Arrays = {
            "words": np.array([word.encode() for word in words]),
            "vectors": np.stack([table.vectors[word] for word in words]),
            "idf": np.log((1 + len(spoken)) / (1 + counts)) + 1,
        }
        settings = settings or VectorsSettings()
        if settings.weighting == "none":
            arrays["idf"] = np.ones(len(words))
        encoder = cls(settings, {word: row for row, word in enumerate(words)}, arrays, table.sha256)
        means, known = encoder._averages(spoken)
        arrays["mean"], arrays["deviation"] = mean_and_deviation(means[known])
        return encoder, encoder.transform(train.texts)

    def transform(self, texts: Sequence[str]) -> Features:
        means, known = self._averages([vector_tokens(normalise(text)) for text in texts])
        scaled = (means - self.arrays["mean"]) / self.arrays["deviation"]
        scaled[~known] = 0
        found: Features = scaled.astype(np.float32)
        return found

    def _averages(self, spoken: Sequence[Sequence[str]]) -> tuple[Floats, NDArray[np.bool_]]:
        """Weighted mean of each text's known tokens, (texts, width), and which texts have any, (texts,)."""
        means = np.zeros((len(spoken), self.arrays["vectors"].shape[1]))
        known = np.zeros(len(spoken), dtype=bool)
        for place, said in enumerate(spoken):
            rows = [self.row_of[token] for token in said if token in self.row_of]
            if rows:
                weights = self.arrays["idf"][rows]
                means[place] = weights @ self.arrays["vectors"][rows].astype(np.float64) / weights.sum()
                known[place] = True
        return means, known

    def blocks(self) -> dict[str, int]:
        return {"vectors": len(self.arrays["mean"])}

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        return dict(self.arrays), {"settings": self.settings.model_dump(mode="json"), "vectors_sha256": self.sha256}

    @classmethod
    def from_state(
        cls, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any], options: Mapping[str, Any]
    ) -> VectorsEncoder:
        words = [word.decode() for word in arrays["words"].tolist()]
        settings = VectorsSettings.model_validate(values["settings"])
        return cls(settings, {word: row for row, word in enumerate(words)}, arrays, values["vectors_sha256"])

    def noticed(self, texts: Sequence[str]) -> dict[str, int | float]:
        spoken = [token for text in texts for token in vector_tokens(normalise(text))]
        share = sum(token in self.row_of for token in spoken) / max(len(spoken), 1)
        return {"share of tokens with a word vector": round(share, 4)}
