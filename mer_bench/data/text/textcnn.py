"""The convolutional network whose last hidden layer the field has used as text features for years.

Follows Kim (2014), "Convolutional Neural Networks for Sentence Classification", in the size of Ghosal et al.
(2019), "DialogueGCN", section 3.1, and of others before them: filters over 3, 4 and 5 tokens, 50 of
each, the largest answer of each filter over the text, and a dense layer of 100 in front of the classes. Word
embeddings start at a file's vectors where one is given, else at random, and are learnt along.

The network is trained on the labels of the train split, so the features are label-supervised, and those of
train come from the network that has seen their labels, as in the field. The ways to hide the labels were worse
where they were compared: MELD's train and dev dialogues in five parts, each of three of them scored by models
on features that were fitted on the other four. Weighted F1, means of the three, under a logistic regression
and under a bidirectional GRU over the dialogue:

    dense layer of one network for all                               53.6   53.2
    train: networks that did not see the dialogue, class scores      50.2   49.7
    train: such networks, their dense layers mapped to the one's     52.1   51.4
    the last two side by side                                        52.1   52.6

Dense layers of several networks that are not mapped (41.2 and 47.3) do not share a space at all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mer_bench.config import Settings
from mer_bench.data.text.encoding import Arrays, Features, TextEncoder, TrainTexts
from mer_bench.data.text.folds import dialogue_folds
from mer_bench.data.text.tokens import normalise, vector_tokens
from mer_bench.data.text.word_vectors import WordVectors, read_vectors
from mer_bench.errors import DataError
from mer_bench.seeding import derived_seed

PADDING, UNKNOWN = 0, 1
_POOL = 16
"""Batches whose texts are sorted by length together: short texts are not padded to the longest of all."""


class TextCnnSettings(Settings):
    """How the network is built and trained.

    Attributes:
        filters: Tokens that a filter spans. maps: Filters of each span.
        features: Width of the dense layer.
        embedding: Width of the word embeddings where no file decides it.
        least_utterances: Train utterances a word without a vector must occur in, to be told from unknown ones.
        longest: Tokens of a text that are read.
        dropout: On the pooled answers and on the dense layer.
        weight_decay: Decoupled decay of AdamW.
        epochs: Passes over the train split at most.
        patience: Epochs without a lower loss on the held-out dialogues after which training stops.
        folds: Parts of the train dialogues, one of which is held out to find the number of epochs.
        seed: Of everything.
    """

    filters: tuple[int, ...] = (3, 4, 5)
    maps: int = 50
    features: int = 100
    embedding: int = 100
    least_utterances: int = 2
    longest: int = 100
    dropout: float = 0.5
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    batch_size: int = 50
    epochs: int = 12
    patience: int = 2
    folds: int = 10
    seed: int = 0


class TextCnn(nn.Module):
    """The network.

    Args:
        embedding: Vector of each word to begin with, (words, width).

    Shapes:
        ids: (texts, tokens), row of the embedding, PADDING behind the text. lengths: (texts,).
        returns: class scores (texts, classes); `hidden`: the dense layer (texts, features).
    """

    def __init__(self, embedding: Tensor, classes: int, settings: TextCnnSettings) -> None:
        super().__init__()
        width = embedding.shape[1]
        self.spans = settings.filters
        self.embedding = nn.Embedding.from_pretrained(embedding.clone(), freeze=False, padding_idx=PADDING)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, settings.maps, span) for span in settings.filters)
        self.dense = nn.Linear(settings.maps * len(settings.filters), settings.features)
        self.out = nn.Linear(settings.features, classes)
        self.dropout = settings.dropout

    def hidden(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The dense layer's output, which is the feature of a text.

        Shapes:
            ids: (texts, tokens), long. lengths: (texts,), long. returns: (texts, dense width), float.
        """
        embedded = self.embedding(ids).transpose(1, 2)  # (texts, width, tokens)
        pooled = []
        for span, convolution in zip(self.spans, self.convolutions, strict=True):
            answers = convolution(embedded)  # (texts, maps, windows)
            windows = torch.arange(answers.shape[2])
            # Windows that begin behind a text's last are there because another text, or another filter, is longer.
            beyond = windows[None, :] > (lengths - span).clamp(min=0)[:, None]  # (texts, windows)
            pooled.append(answers.masked_fill(beyond[:, None, :], -math.inf).amax(dim=2))  # (texts, maps)
        together = functional.relu(torch.cat(pooled, dim=1))  # (texts, spans * maps)
        return functional.relu(self.dense(functional.dropout(together, self.dropout, self.training)))

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        hidden = functional.dropout(self.hidden(ids, lengths), self.dropout, self.training)
        scores: Tensor = self.out(hidden)
        return scores


@dataclass(frozen=True)
class TextCnnEncoder(TextEncoder):
    """The trained network's dense layer, each column less its train mean, all divided by one number.

    That number makes their mean square 1 over train. One for each column would not do: a unit that is all but
    silent in train would become huge where another text wakes it.

    Attributes:
        row_of: Row of each known word in the embedding; the first two are padding and unknown words.
        arrays: `mean` of the columns and their `scale`, one number.
        trained: What a reader of the store should know: epochs, loss, the checksum of a vectors file.
    """

    settings: TextCnnSettings
    row_of: Mapping[str, int]
    network: TextCnn
    arrays: Mapping[str, NDArray[Any]]
    trained: Mapping[str, Any]

    @classmethod
    def fit(
        cls, train: TrainTexts, options: Mapping[str, Any], settings: TextCnnSettings | None = None
    ) -> tuple[TextCnnEncoder, Features]:
        """Train the network on the labelled utterances of train, and encode all of train with it.

        A tenth of the dialogues is held out to find the number of epochs; then a new network is trained on all
        of them for as many.

        Raises:
            DataError: If no utterance has a label.
        """
        settings = settings or TextCnnSettings()
        labels = np.asarray(train.labels, dtype=np.int64)
        labelled = np.flatnonzero(labels >= 0)
        if len(labelled) == 0:
            raise DataError("textcnn features are learnt from labels, and no train utterance has one.")
        spoken = [vector_tokens(normalise(text)) for text in train.texts]
        texts_with = Counter(token for said in spoken for token in set(said))
        given = options.get("vectors")
        table = None if given is None else read_vectors(Path(given), texts_with)
        known = {} if table is None else table.vectors
        words = sorted(word for word in texts_with if texts_with[word] >= settings.least_utterances or word in known)
        row_of = {word: row for row, word in enumerate(words, start=UNKNOWN + 1)}
        rows = [_rows(said, row_of, settings.longest) for said in spoken]
        start = _embedding(words, table, settings)
        fold = dialogue_folds(np.asarray(train.dialogues), settings.folds, derived_seed(settings.seed, "folds"))
        watched, others = (labelled[(fold[labelled] == 0) == chosen] for chosen in (True, False))
        epochs, loss = settings.epochs, None
        with _one_thread():
            if len(watched) and len(others):
                epochs, loss = _epochs(rows, labels, others, watched, start, train.class_count, settings)
            network = _new_network(start, train.class_count, settings)
            for _ in _training(network, [rows[row] for row in labelled], labels[labelled], settings, epochs):
                pass
        encoder = cls(
            settings=settings,
            row_of=row_of,
            network=network,
            arrays={},
            trained={
                "epochs": epochs,
                "held_out_loss": loss,
                "vectors_sha256": None if table is None else table.sha256,
            },
        )
        hidden = encoder._hidden(rows)
        mean = hidden.mean(axis=0, dtype=np.float64)
        size = float(np.sqrt(((hidden - mean) ** 2).mean()))
        encoder = replace(encoder, arrays={"mean": mean, "scale": np.array(size if size > 1e-9 else 1.0)})
        return encoder, encoder._scaled(hidden)

    def transform(self, texts: Sequence[str]) -> Features:
        spoken = [vector_tokens(normalise(text)) for text in texts]
        return self._scaled(self._hidden([_rows(said, self.row_of, self.settings.longest) for said in spoken]))

    def _scaled(self, hidden: Features) -> Features:
        found: Features = ((hidden - self.arrays["mean"]) / self.arrays["scale"]).astype(np.float32)
        return found

    def _hidden(self, rows: Sequence[Sequence[int]]) -> Features:
        with _one_thread():
            return _answers(self.network, self.network.hidden, rows, self.settings)

    def blocks(self) -> dict[str, int]:
        return {"textcnn": self.settings.features}

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays = {f"network.{name}": tensor.numpy().copy() for name, tensor in self.network.state_dict().items()}
        arrays["words"] = np.array([word.encode() for word in self.row_of], dtype=np.bytes_)
        arrays.update(self.arrays)
        return arrays, {"settings": self.settings.model_dump(mode="json"), **self.trained}

    @classmethod
    def from_state(
        cls, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any], options: Mapping[str, Any]
    ) -> TextCnnEncoder:
        settings = TextCnnSettings.model_validate(values["settings"])
        weights = {
            name.removeprefix("network."): torch.from_numpy(np.array(array))
            for name, array in arrays.items()
            if name.startswith("network.")
        }
        network = TextCnn(weights["embedding.weight"], len(weights["out.bias"]), settings)
        network.load_state_dict(weights)
        words = [word.decode() for word in arrays["words"].tolist()]
        return cls(
            settings=settings,
            row_of={word: row for row, word in enumerate(words, start=UNKNOWN + 1)},
            network=network,
            arrays={name: arrays[name] for name in ("mean", "scale")},
            trained={name: values[name] for name in ("epochs", "held_out_loss", "vectors_sha256")},
        )

    def noticed(self, texts: Sequence[str]) -> dict[str, int | float]:
        spoken = [vector_tokens(normalise(text)) for text in texts]
        count = sum(map(len, spoken))
        share = sum(token in self.row_of for said in spoken for token in said) / max(count, 1)
        cut = sum(len(said) > self.settings.longest for said in spoken)
        found: dict[str, int | float] = {"share of tokens that textcnn knows": round(share, 4)}
        return {**found, f"texts cut to textcnn's {self.settings.longest} tokens": cut} if cut else found


def _rows(said: Sequence[str], row_of: Mapping[str, int], longest: int) -> list[int]:
    """Row of each token of a text in the embedding, cut short where it is too long."""
    return [row_of.get(token, UNKNOWN) for token in said[:longest]]


def _embedding(words: Sequence[str], table: WordVectors | None, settings: TextCnnSettings) -> Tensor:
    """The embeddings to begin with: (words + 2, width); where no vector is known, noise of the others' size."""
    width = settings.embedding if table is None else table.width
    rng = np.random.default_rng(derived_seed(settings.seed, "embedding"))
    size = 1.0 if table is None else float(np.mean([vector.std() for vector in table.vectors.values()]))
    start = rng.normal(0.0, size, (len(words) + UNKNOWN + 1, width)).astype(np.float32)
    start[PADDING] = 0
    for row, word in enumerate(words, start=UNKNOWN + 1):
        if table is not None and word in table.vectors:
            start[row] = table.vectors[word]
    return torch.from_numpy(start)


def _new_network(start: Tensor, classes: int, settings: TextCnnSettings) -> TextCnn:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(settings.seed, "weights"))
        return TextCnn(start, classes, settings)


def _training(
    network: TextCnn, rows: Sequence[Sequence[int]], labels: NDArray[np.int64], settings: TextCnnSettings, epochs: int
) -> Iterator[int]:
    """Train, and yield after each epoch its number."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    rng = np.random.default_rng(derived_seed(settings.seed, "batches"))
    lengths = np.array([len(row) for row in rows])
    for epoch in range(1, epochs + 1):
        network.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(settings.seed, f"dropout {epoch}"))
            for chosen in _batches(lengths, settings.batch_size, rng):
                scores = network(*padded([rows[row] for row in chosen.tolist()], max(settings.filters)))
                loss = functional.cross_entropy(scores, torch.from_numpy(labels[chosen]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        yield epoch


def _epochs(
    rows: Sequence[Sequence[int]],
    labels: NDArray[np.int64],
    others: NDArray[np.int64],
    watched: NDArray[np.int64],
    start: Tensor,
    classes: int,
    settings: TextCnnSettings,
) -> tuple[int, float]:
    """Epochs after which the loss on held-out dialogues is lowest, and that loss."""
    network = _new_network(start, classes, settings)
    best, lowest = 1, math.inf
    seen = [rows[row] for row in watched.tolist()]
    for epoch in _training(network, [rows[row] for row in others.tolist()], labels[others], settings, settings.epochs):
        scores = torch.from_numpy(_answers(network, network, seen, settings))
        loss = float(functional.cross_entropy(scores, torch.from_numpy(labels[watched])))
        if loss < lowest:
            best, lowest = epoch, loss
        elif epoch - best >= settings.patience:
            break
    return best, round(lowest, 4)


def _batches(lengths: NDArray[np.int64], size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Batches of texts of like length, all texts once, in random order."""
    order = rng.permutation(len(lengths))
    found = []
    for begin in range(0, len(order), size * _POOL):
        pool = order[begin : begin + size * _POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        found += [pool[place : place + size] for place in range(0, len(pool), size)]
    return [found[place] for place in rng.permutation(len(found)).tolist()]


def _answers(
    network: TextCnn,
    function: Callable[[Tensor, Tensor], Tensor],
    rows: Sequence[Sequence[int]],
    settings: TextCnnSettings,
) -> Features:
    """What the network, or a part of it, makes of each text when nothing is dropped: (texts, width)."""
    network.eval()
    least = max(settings.filters)
    with torch.inference_mode():
        # The first batch holds no text of the caller's: it tells the width where there are no texts.
        found = np.zeros((len(rows), function(*padded([[]], least)).shape[1]), dtype=np.float32)
        order = np.argsort([len(row) for row in rows], kind="stable")
        for begin in range(0, len(order), settings.batch_size):
            chosen = order[begin : begin + settings.batch_size].tolist()
            found[chosen] = function(*padded([rows[row] for row in chosen], least)).numpy()
    return found


def padded(rows: Sequence[Sequence[int]], least: int) -> tuple[Tensor, Tensor]:
    """Texts side by side: ids (texts, tokens), at least as long as the widest filter, and lengths (texts,)."""
    lengths = [len(row) for row in rows]
    ids = np.full((len(rows), max([least, *lengths])), PADDING, dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
    return torch.from_numpy(ids), torch.tensor(lengths)


@contextmanager
def _one_thread() -> Iterator[None]:
    """On one thread, so that the number of processors has no say in the last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
