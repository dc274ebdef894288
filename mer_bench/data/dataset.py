"""What a dataset plugin subclasses, and the types it needs; no torch, so that preparing data starts quickly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from mer_bench.cards import DatasetCard, SplitName
from mer_bench.data.corpus import Corpus
from mer_bench.data.preparation import PreparationRequest
from mer_bench.data.store import StoreContent
from mer_bench.errors import PluginError

__all__ = ["Corpus", "Dataset", "DatasetCard", "PreparationRequest", "SplitName", "StoreContent"]


class Dataset(ABC):
    """A corpus: knows its raw files and how to turn them into a feature store.

    Statistics used for scaling and text models come from the train split alone.
    """

    def __init__(self, card: DatasetCard) -> None:
        self.card = card

    @abstractmethod
    def prepare(self, request: PreparationRequest) -> StoreContent:
        """Read the raw files and make the arrays of one store.

        Raises:
            DataError: If a file is damaged or its counts are not the published ones; names the file.
            MissingDataError: If an option that the feature set needs was not given.
        """

    def examine(self, source: str, file: Path) -> None:  # noqa: B027 - doing nothing is a fair answer
        """Say what is wrong with a file that is not the published one, as precisely as can be told.

        Called when a file that a user imports differs from what its source pins.

        Args:
            source: Name of the source that the file should be.

        Raises:
            DataError: Names file, line and column. Returns where it finds no fault.
        """

    def release_corpus(self, request: PreparationRequest) -> Corpus:
        """The corpus of a feature set that is a community release; what `data import --from FILE` checks.

        Raises:
            DataError: If a file is damaged, of another layout, or not of the published counts.
        """
        raise PluginError(f"{type(self).__module__} reads no community release.")

    def annotation(self, labels: str, raw: Path) -> Corpus | None:
        """The published annotation, with which a community release is compared; None where it is not on this machine.

        Args:
            raw: The folder of the dataset's raw files, some of which may be there.

        Raises:
            DataError: If a file of it is damaged.
        """
        return None
