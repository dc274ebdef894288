"""A user's own dialogues as a dataset: what `mer-bench data import NAME --from FOLDER` keeps in the data folder."""

from __future__ import annotations

from pathlib import Path

from mer_bench.data.corpus import make_store
from mer_bench.data.dataset import Dataset, PreparationRequest, StoreContent
from mer_bench.data.own.raw_form import corpus_of, read_raw
from mer_bench.errors import DataError


class OwnDialogues(Dataset):
    """Dialogues and feature arrays of the user, in the raw form that an import writes."""

    def prepare(self, request: PreparationRequest) -> StoreContent:
        data = read_raw(request.files, self.card)
        return make_store(corpus_of(data, self.card, request.labels), self.card, request)

    def examine(self, source: str, file: Path) -> None:
        raise DataError(
            f"{file} was changed after it was imported. Import the dialogues again: mer-bench data import "
            f"{file.parent.name} --from FOLDER"
        )
