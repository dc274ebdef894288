"""From raw files to prepared stores: what is there, what is missing, and making it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PreparationRequest:
    """What a dataset is asked to turn into a feature store.

    Attributes:
        features, labels, protocol: Ids without the dataset's name: `transcripts`, `emotion`, `official`.
        fold: Number of the fold from 1, or None under a protocol with one fixed split.
        files: Where each raw source of the feature set lies, by the source's name.
        options: What the user gave to `data prepare`: `{"vectors": Path(...)}`.
    """

    features: str
    labels: str
    protocol: str
    fold: int | None
    files: Mapping[str, Path]
    options: Mapping[str, Any] = field(default_factory=dict)
