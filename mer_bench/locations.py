"""Where data lie on this machine: raw files as published, and the stores prepared from them.

<root>/raw/<dataset>/<source>
<root>/prepared/<dataset>/<features>/<labels>/<protocol>[/fold<k>]
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

ROOT_VARIABLE = "MER_BENCH_DATA"


def data_root(given: Path | None = None) -> Path:
    """The data folder: the one given (`--data-root`), else $MER_BENCH_DATA, else the user's data folder.

    It need not exist. An empty variable counts as not set.
    """
    if given is not None:
        return Path(given).expanduser().absolute()
    if named := os.environ.get(ROOT_VARIABLE):
        return Path(named).expanduser().absolute()
    return Path(platformdirs.user_data_dir("mer-bench", appauthor=False))


@dataclass(frozen=True)
class StoreKey:
    """What a prepared store is for; ids without the dataset's name.

    Attributes:
        fold: Number of the fold from 1, or None under a protocol with one fixed split.
    """

    dataset: str
    features: str
    labels: str
    protocol: str
    fold: int | None = None

    def __str__(self) -> str:
        fold = "" if self.fold is None else f", fold {self.fold}"
        return f"{self.dataset}/{self.features} ({self.labels}, {self.protocol}{fold})"


def raw_folder(root: Path, dataset: str) -> Path:
    """Where a dataset's raw files are kept."""
    return root / "raw" / dataset


def store_folder(root: Path, key: StoreKey) -> Path:
    """Where the prepared store of that key is kept."""
    folder = root / "prepared" / key.dataset / key.features / key.labels / key.protocol
    return folder if key.fold is None else folder / f"fold{key.fold}"
